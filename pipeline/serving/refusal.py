"""Why a request is not answered, as its sender is told: a status of HTTP and one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Refusal(Exception):  # noqa: N818  # not a fault of the server
    """A request that is not answered.

    Attributes:
        status: of HTTP, from 400 to 499.
        sentence: what is wrong, for a person; one line.
        headers: what a program reads beside it.
    """

    status: int
    sentence: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence


def too_busy(what: str) -> Refusal:
    """The refusal of a request that comes while too much else is being done."""
    return Refusal(429, f"{what}: try again in a second", {"Retry-After": "1"})
