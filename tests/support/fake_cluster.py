"""Stand-ins for the Ray side of a cluster: a board in memory, a head and a member that tell events, a probe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tuning.cluster.node_events import Joined, Left, NodeEvent
from tuning.cluster.node_record import NodeRecord, SearchSummary
from tuning.cluster.orders import Order
from tuning.cluster.versions import Versions
from tuning.on_ray import board, head, member, probe
from tuning.on_ray.board import Reached

HEAD = NodeRecord("a", "10.0.0.1", is_head=True, cores=4, gives_mb=5000)


@dataclass
class FakeCluster:
    """What is on the board, what the head and the member do, and what they were called with."""

    records: list[NodeRecord] = field(default_factory=lambda: [HEAD])
    searches: list[SearchSummary] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    events: Sequence[NodeEvent] = ()
    """Told after the node has joined."""
    answer: probe.Answer = field(default_factory=lambda: probe.Head(HEAD, "s"))
    reached: Reached = field(default_factory=lambda: Reached((), 0.0))
    base: int = 0
    """Ports that are free on this machine, where a test needs them."""
    error: Exception | None = None
    """Raised by the head or the member instead of joining."""
    ends: str = "Ctrl-C"
    on_poll: Callable[[], None] = lambda: None
    """Called whenever the board is read."""
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    called_back: list[tuple[str, Sequence[int]]] = field(default_factory=list)
    comes_back: bool | None = None
    """Whether its head was to come back."""
    stopped: bool | None = None
    """Whether the node was asked to end when it looked."""

    def run(
        self, plan: Any, address: str, code: Any, on_event: Any, should_stop: Any, comes_back: Any = lambda: None
    ) -> str:
        self.asked.append((plan, address, code))
        if self.error is not None:
            raise self.error
        for event in (Joined(NodeRecord(plan.name, "10.0.0.2"), 1.5), *self.events, Left(self.ends)):
            on_event(event)
        self.stopped, self.comes_back = should_stop(), comes_back()
        return self.ends

    def probe(self, address: str, token: str) -> probe.Answer:
        self.asked.append((address, token))
        return self.answer

    def board(self, address: str, token: str) -> "FakeBoard":
        return FakeBoard(self)


class FakeBoard:
    """A board of the fake cluster; a node that is told to leave is gone at the next look but one."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> "FakeBoard":
        return self

    def __exit__(self, *_: object) -> None: ...

    def nodes(self) -> tuple[NodeRecord, ...]:
        self._cluster.on_poll()
        return tuple(self._cluster.records)

    def searches(self) -> tuple[SearchSummary, ...]:
        return tuple(self._cluster.searches)

    def give_order(self, name: str, order: Order) -> None:
        self._cluster.orders[name] = order

    def call_back(self, address: str, ports: Sequence[int]) -> Reached:
        self._cluster.called_back.append((address, ports))
        return self._cluster.reached


def fake_cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Put the stand-ins in place of the Ray side."""
    cluster = FakeCluster()
    monkeypatch.setattr(board, "Board", cluster.board)
    monkeypatch.setattr(head, "run", cluster.run)
    monkeypatch.setattr(member, "run", cluster.run)
    monkeypatch.setattr(probe, "ask", cluster.probe)
    return cluster


def versions_here() -> Versions:
    """What this machine runs, as the commands say it."""
    from pipeline.cluster.this_laptop import PACKAGES
    from tuning.cluster.versions import of_this_machine

    return of_this_machine(PACKAGES)
