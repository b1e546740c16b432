"""What a search sent over the network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """Between the driver's node and one other; bytes, as far as they were counted."""

    shared_bytes: int = 0
    """Of the shared files, to that node."""
    checkpoint_bytes: int = 0
    """Of checkpoints, to that node: for trials that went on there."""
    received_bytes: int = 0
    """Of checkpoints, from that node."""
