"""A head without Ray: its key-value store in this process, and boards and nodes that talk to it directly."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tuning.cluster.node_folder import NodeFolder
from tuning.cluster.ports import Ports
from tuning.cluster.versions import Versions
from tuning.errors import ClusterError
from tuning.on_ray.board import Board, BoardError, TokenRefusedError
from tuning.on_ray.board_child import Store
from tuning.on_ray.node_plan import NodePlan
from tuning.on_ray.probe import Nothing


class Client:
    """What `Store` calls of Ray's client."""

    def __init__(self, session: str = "5e55") -> None:
        self.cluster_id = bytes.fromhex(session)
        self.values: dict[bytes, bytes] = {}
        self.alive: set[str] = set()

    def internal_kv_put(self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout: float) -> None:
        assert overwrite
        self.values[key] = value

    def internal_kv_get(self, key: bytes, namespace: bytes, timeout: float) -> bytes | None:
        return self.values.get(key)

    def internal_kv_keys(self, prefix: bytes, namespace: bytes, timeout: float) -> list[bytes]:
        return [key for key in self.values if key.startswith(prefix)]

    def internal_kv_multi_get(self, keys: list[bytes], namespace: bytes, timeout: float) -> dict[bytes, bytes]:
        return {key: self.values[key] for key in keys if key in self.values}

    def internal_kv_del(self, key: bytes, by_prefix: bool, namespace: bytes, timeout: float) -> None:
        self.values.pop(key, None)

    def get_all_node_info(self, timeout: float) -> dict[bytes, Any]:
        return {bytes.fromhex(each): SimpleNamespace(state=0) for each in self.alive}


@dataclass
class FakeHead:
    """A head at an address; everything about it can be changed while others talk to it."""

    token: str = "token"
    client: Client = field(default_factory=Client)
    listens: Nothing | None = None
    answers: bool = True
    boards: "list[FakeBoard]" = field(default_factory=list)

    def board(self, address: str = "host:1", token: str = "token") -> "FakeBoard":
        if not self.answers or self.listens is not None:
            raise BoardError("the head does not answer")
        if token != self.token:
            raise TokenRefusedError("wrong")
        self.boards.append(FakeBoard(self))
        return self.boards[-1]

    def lose_connections(self) -> None:
        """As after a change of address: what was connected before never gets another answer."""
        for board in self.boards:
            board.is_lost = True

    def start_anew(self) -> None:
        """As after a kill: everything is forgotten."""
        self.client = Client("a11e")


class FakeBoard(Board):
    def __init__(self, head: FakeHead) -> None:
        self._head = head
        self._client = head.client
        self.session = Store(head.client).session
        self.is_lost = False

    def close(self) -> None:
        self.is_lost = True

    def _ask(self, call: str, *arguments: Any) -> Any:
        if not self._head.answers or self._head.listens is not None or self._client is not self._head.client:
            self.is_lost = True
        if self.is_lost:
            raise BoardError("the head does not answer")
        return getattr(Store(self._client), call)(*arguments)


class FakeProcesses:
    """In place of `NodeProcesses`: a node that is alive until it is ended or killed."""

    def __init__(self, head: FakeHead, folder: Path, node_id: str) -> None:
        self._head = head
        self.node_id = node_id
        self.node_folder = NodeFolder(folder)
        self.node_folder.create()
        self.lost: str | None = None
        self.ended: list[bool] = []
        """Whether in order, for each time that it was ended."""
        head.client.alive.add(node_id)

    def dead(self) -> str | None:
        return self.lost

    def end(self, *, in_order: bool = True) -> None:
        self.ended.append(in_order)
        self._head.client.alive.discard(self.node_id)


class Starts:
    """Stands for the class `NodeProcesses`: starts fakes, or fails as often as asked."""

    def __init__(self, head: FakeHead, folder: Path) -> None:
        self._head = head
        self._folder = folder
        self.started: list[FakeProcesses] = []
        self.plans: list[NodePlan] = []
        self.fail: list[str] = []

    def __call__(
        self, plan: NodePlan, address: str, token: str, head: str | None, should_stop: Callable[[], bool]
    ) -> FakeProcesses:
        self.plans.append(plan)
        if self.fail:
            raise ClusterError(self.fail.pop(0))
        number = len(self.started) + 1
        self.started.append(FakeProcesses(self._head, self._folder / str(number), f"{number:04x}"))
        return self.started[-1]


def plan(folder: Path, name: str = "b", code_now: Callable[[], str] = lambda: "same") -> NodePlan:
    return NodePlan(name, Ports(20000), 2, 3000, 500, Versions(code="same"), {"precision": "bf16"}, folder, code_now)
