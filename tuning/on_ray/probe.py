"""What answers at an address, told within two seconds: nothing, something that is no head, or a head."""

from dataclasses import dataclass

from tuning.cluster.node_record import NodeRecord


@dataclass(frozen=True)
class Nothing:
    """Nobody answers."""

    why: str
    refused: bool = False
    """The machine is there and has nothing on that port; otherwise it may be out of reach for a moment."""


@dataclass(frozen=True)
class NotAHead:
    """Something answers that no `cluster up` has made."""

    what: str


@dataclass(frozen=True)
class WrongToken:
    """A head that does not let this process in."""


@dataclass(frozen=True)
class Head:
    """A head, and what it says of itself."""

    record: NodeRecord
    session: str
    """Changes with every start of the head."""


Answer = Nothing | NotAHead | WrongToken | Head


def ask(address: str, token: str) -> Answer:
    """Ask what is at HOST:PORT; within 2 s."""
    raise NotImplementedError
