"""What one `seqpipe tune` command asks for, and what that means for a search that may have started before."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.resolution import with_values
from pipeline.config.schema import RunConfig
from pipeline.search.defaults import DEFAULT_TRIALS, LEAST_TRIAL_MB
from pipeline.search.store import SearchStatus
from tuning.search import next_target
from tuning.settings import Settings
from tuning.space import Space


@dataclass(frozen=True)
class Request:
    """The flags of a command, resolved."""

    config: RunConfig
    """The config of trial 0, from which the other trials differ in the settings of the space."""
    space: Space
    trials: int | None = None
    """None: the target of a search that has started, the default number for a new one."""
    extend: int = 0
    fresh: bool = False
    cap_mb: int | None = None
    reserve_mb: int | None = None
    concurrency: int | None = None
    searcher: Literal["optuna", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    address: str | None = None
    """HOST:PORT of the cluster to search on; None for this machine alone."""
    token: str | None = field(default=None, repr=False)
    """What the cluster of the workspace lets this command in by; None for one that somebody built by hand."""
    max_time_s: float | None = None
    """Time limit of this command; the caller's stop token watches it."""
    may_sleep: bool = False
    """Whether this laptop may fall asleep while trials run."""

    def target(self, status: SearchStatus | None) -> int:
        """How many trials the search is to have."""
        if status is None:
            return self.trials or DEFAULT_TRIALS
        return next_target(status.target, status.finished >= status.target, self.trials or 0, self.extend)

    def is_met(self, status: SearchStatus) -> bool:
        """Whether the search has all trials that are asked for, or all that the space allows."""
        return status.is_done and (status.is_exhausted or self.target(status) <= status.target)

    def settings(self, status: SearchStatus | None) -> Settings:
        """How to search."""
        epochs = self.config.train.epochs
        return Settings(
            trials=self.trials or (status.target if status else DEFAULT_TRIALS),
            max_epochs=epochs,
            mode="max",
            seed=self.config.seed,
            searcher=self.searcher,
            scheduler=self.scheduler,
            cap_mb=self.cap_mb,
            reserve_mb=self.reserve_mb,
            least_cap_mb=LEAST_TRIAL_MB,
            concurrency=self.concurrency,
            cpus_per_trial=float(self._threads),
            address=self.address,
            token=self.token,
            grace_epochs=max(1, epochs // 5),  # the first epochs, while the learning rate rises, say little
        )

    def base_config(self) -> RunConfig:
        """The config of a trial before its own settings: with as many threads as Ray reserves cores for it."""
        return with_values(self.config, {"compute.threads": self._threads, "compute.max_time_s": None})

    @property
    def _threads(self) -> int:
        return self.config.compute.threads or 1
