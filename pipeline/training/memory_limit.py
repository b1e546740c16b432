"""The memory that a training may come to hold: a cap, a container's limit, or what the machine has free."""

import os
from dataclasses import dataclass
from typing import Literal

from pipeline.config.schema import ComputeConfig
from tuning import machine
from tuning.capped.run_capped import tree_memory_mb

SPARE = 0.02
"""The share of a machine's memory that a training without a limit leaves alone: below it a system swaps."""


@dataclass(frozen=True)
class Limit:
    """Of a process and all below it."""

    mb: float
    kind: Literal["cap", "container", "free", "trial"]
    """`cap`: --max-memory-mb. `container`: a control group's. `free`: what the machine has. `trial`: of a search."""

    def in_words(self) -> str:
        """`1000 MB (--max-memory-mb)`."""
        whose = {"cap": " (--max-memory-mb)", "container": " (the container's limit)", "free": " that are free now"}
        return f"{self.mb:.0f} MB{whose.get(self.kind, '')}"


def limit_of(compute: ComputeConfig, device: str) -> Limit | None:
    """That of a training of `seqpipe run`; None on an accelerator without a cap."""
    if compute.max_memory_mb is not None:
        return Limit(compute.max_memory_mb, "cap")
    if device != "cpu":
        return None
    here = machine.this_machine()
    held_mb = tree_memory_mb(os.getpid())
    if here.memory_limit_bytes is not None:
        return Limit(here.available_bytes / 1e6 + held_mb, "container")
    return Limit((here.available_bytes - SPARE * here.memory_bytes) / 1e6 + held_mb, "free")
