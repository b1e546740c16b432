"""Orders: what a node can be told from another laptop."""

from enum import StrEnum


class Order(StrEnum):
    """What a node is told by way of the board."""

    LEAVE = "leave"
    """End in order; the others go on."""
    DOWN = "down"
    """The whole cluster ends."""
