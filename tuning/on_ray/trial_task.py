"""What the driver sends to a trial worker: the row that it is to run, and what all trials of a search share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from tuning.ledger import Row
from tuning.on_ray.shared_files import SharedFiles
from tuning.sampler import Mode


@dataclass(frozen=True)
class Task:
    """The row that a trial worker is to run."""

    row: int
    attempt: int
    config: Mapping[str, Any]
    known_epochs: int
    """The last epoch that the ledger has a report of."""
    memory_mb: float | None = None
    """The memory to plan with."""
    halvings: int = 0
    """How often the row hit its cap."""

    @classmethod
    def of(cls, row: Row, attempt: int, memory_mb: float) -> Self:
        """What is left to do of a row."""
        return cls(row.number, attempt, row.config, row.last_epoch, memory_mb, row.halvings)

    def to_ray(self) -> dict[str, Any]:
        """Ray's configuration of the trial; the row is in it by itself for the scheduler and the callbacks."""
        return {"row": self.row, "task": json.dumps(asdict(self))}

    @classmethod
    def from_ray(cls, config: Mapping[str, Any]) -> Self:
        """The task, from Ray's configuration of the trial."""
        return cls(**json.loads(config["task"]))


@dataclass(frozen=True)
class TrialSettings:
    """Settings that all trials of a search share."""

    mode: Mode
    cap_mb: int
    grace_s: float
    shared_files: SharedFiles
    drivers_node: str
    """Ray's id of the node that has the shared files."""
    reserve_mb: int | None = None
    in_cluster: bool = False
    """Whether there may be other nodes than the driver's."""
    search: str = ""
    """The name of the search, as nodes show it."""
    max_epochs: int = 0
