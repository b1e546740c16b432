"""What a node says about itself, and a search about its progress: the records on the board.

They are read by laptops that may run another version: what is unknown is left out, what is missing has a default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from tuning.cluster.versions import Versions

NodeState = Literal["ready", "leaving", "unfit"]


@dataclass(frozen=True)
class TrialOnNode:
    """A trial that runs on a node."""

    search: str = ""
    row: int = 0
    epoch: int = 0
    epochs: int = 0
    value: float | None = None
    held_mb: float = 0.0
    cap_mb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**_known(cls, content))


@dataclass(frozen=True)
class NodeRecord:
    """A laptop in the cluster, as it described itself last."""

    name: str
    address: str
    node_id: str = ""
    """Ray's; empty before it has joined."""
    is_head: bool = False
    cores: float = 0.0
    gives_mb: int = 0
    """What it gives to trials."""
    reserve_mb: int = 0
    """What it keeps free for everything else."""
    versions: Versions = field(default_factory=Versions)
    facts: Mapping[str, str] = field(default_factory=dict)
    """The caller's words about what the node computes with, such as its precision."""
    clock: float = 0.0
    """Its time of day when it wrote this."""
    state: NodeState = "ready"
    why: str = ""
    """Why it is leaving or unfit."""
    free_mb: int = 0
    trials: tuple[TrialOnNode, ...] = ()
    turn: int = 0
    """How often it had joined before, which says on which of its ports it listens."""

    @property
    def takes_work(self) -> bool:
        return self.state == "ready"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"facts": dict(self.facts), "trials": [trial.to_json() for trial in self.trials]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        known = _known(cls, content)
        return cls(
            **known
            | {
                "versions": Versions(**_known(Versions, known.get("versions", {}))),
                "trials": tuple(TrialOnNode.from_json(trial) for trial in known.get("trials", ())),
            }
        )


@dataclass(frozen=True)
class SearchSummary:
    """How far a search is, as its driver said last."""

    name: str
    done: int = 0
    target: int = 0
    best: float | None = None
    trials_per_hour: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**_known(cls, content))


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in content.items() if name in names}
