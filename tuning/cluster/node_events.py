"""Events of a node: what `cluster up` and `cluster join` can show while they run."""

from dataclasses import dataclass

from tuning.cluster.node_record import NodeRecord, SearchSummary


@dataclass(frozen=True)
class Starting:
    """Ray's processes are being started."""


@dataclass(frozen=True)
class Joined:
    """The node takes work now; `again` after it was lost."""

    record: NodeRecord
    took_s: float
    again: bool = False


@dataclass(frozen=True)
class Beat:
    """Every two seconds: everything that the board says, this node's own record included."""

    nodes: tuple[NodeRecord, ...]
    searches: tuple[SearchSummary, ...]


@dataclass(frozen=True)
class OtherJoined:
    """Another node has joined; the head says so."""

    name: str
    address: str


@dataclass(frozen=True)
class OtherGone:
    """Another node has left, or was lost; the head says so."""

    name: str
    why: str


@dataclass(frozen=True)
class Lost:
    """This node is no part of the cluster any more; it will come back by itself."""

    why: str


@dataclass(frozen=True)
class Waiting:
    """The head cannot be joined now; it is tried again after so long."""

    why: str
    retry_s: float


@dataclass(frozen=True)
class Unfit:
    """The node takes no more work, but stays, until that is mended."""

    why: str


@dataclass(frozen=True)
class FitAgain:
    """What made the node unfit is gone."""


@dataclass(frozen=True)
class Leaving:
    """The node leaves in order; so many trials are saving."""

    why: str
    trials: int


@dataclass(frozen=True)
class Left:
    """Nothing of the node is left on this machine."""

    why: str


NodeEvent = Starting | Joined | Beat | OtherJoined | OtherGone | Lost | Waiting | Unfit | FitAgain | Leaving | Left
