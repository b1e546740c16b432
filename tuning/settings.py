"""How to search: the choices of a caller, checked."""

from dataclasses import dataclass, field
from typing import Literal

from tuning.sampler import Kind, Mode


@dataclass(frozen=True)
class Settings:
    """How to search. All but `max_epochs` and `mode` may change when a search continues."""

    trials: int
    max_epochs: int
    mode: Mode = "max"
    seed: int = 0
    searcher: Kind = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    cap_mb: int | None = None
    """Memory cap of a trial; None for the largest that lets `concurrency` trials run at once."""
    least_cap_mb: int = 0
    """Without `cap_mb` and `concurrency`: run fewer trials at once rather than give each less than this."""
    concurrency: int | None = None
    """Trials at once; None for as many as fit."""
    reserve_mb: int | None = None
    """Memory that each node keeps free for everything else; None for a tenth of what it has, at least 512 MB."""
    cpus_per_trial: float = 1.0
    address: str | None = None
    """HOST:PORT of a Ray cluster that this machine is a node of; None to start a local Ray for this search."""
    token: str | None = field(default=None, repr=False)
    """What a cluster of `tuning.cluster` lets this process in by; None for one that somebody built by hand."""
    grace_epochs: int = 1
    """ASHA stops no trial before this epoch."""
    reduction_factor: float = 3.0
    """ASHA lets one in so many trials continue."""
    grace_s: float = 30.0
    """How long a trial may take to save and leave when asked to."""
    failures_to_stop: int = 3
    """The search ends if this many trials fail and none has worked."""
    restarts: int = 2
    """How often a trial is started again after its process was lost."""

    def __post_init__(self) -> None:
        for name in ("trials", "max_epochs", "grace_epochs", "failures_to_stop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("cap_mb", "concurrency", "cpus_per_trial", "reserve_mb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value:g}")
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"grace_epochs {self.grace_epochs} is more than the {self.max_epochs} epochs of a trial")
        if self.reduction_factor <= 1:
            raise ValueError(f"reduction_factor must be above 1, not {self.reduction_factor:g}")
