"""How to search: what a caller chooses, checked once."""

from dataclasses import dataclass
from typing import Literal

from tuning.sampler import Kind, Mode


@dataclass(frozen=True)
class Settings:
    """How to search. None of it but `max_epochs` and `mode` is part of what the search is."""

    trials: int
    max_epochs: int
    mode: Mode = "max"
    seed: int = 0
    searcher: Kind = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    cap_mb: int | None = None
    """Memory of one trial; None for the most that lets `concurrency` trials run at once."""
    least_cap_mb: int = 0
    """Without a cap and a concurrency: rather fewer trials at once than less memory for each."""
    concurrency: int | None = None
    """Trials at once; None for as many as fit."""
    cpus_per_trial: float = 1.0
    max_time_s: float | None = None
    address: str | None = None
    """HOST:PORT of a Ray cluster that this machine is a node of; None for a Ray of the search's own."""
    reserve_mb: int | None = None
    """What a local search leaves to everything else; None for a tenth of the memory, at least 512 MB."""
    grace_epochs: int = 1
    reduction_factor: float = 3.0
    grace_s: float = 30.0
    """How long a trial that was asked to leave may take for it."""
    failures_to_stop: int = 3
    """If the first so many trials all fail, the search ends."""
    restarts: int = 2
    """How often a trial whose process was lost is begun again."""

    def __post_init__(self) -> None:
        for name in ("trials", "max_epochs", "grace_epochs", "failures_to_stop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("cap_mb", "concurrency", "cpus_per_trial", "max_time_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value:g}")
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"grace_epochs {self.grace_epochs} is more than the {self.max_epochs} epochs of a trial")
        if self.reduction_factor <= 1:
            raise ValueError(f"reduction_factor must be above 1, not {self.reduction_factor:g}")
