"""What Ray Tune calls while it runs: each hook asks or tells the driver, and keeps nothing of its own."""

import contextlib
import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.search import Searcher

from tuning.decisions import Decisions
from tuning.on_ray.worker import Task


class Driver(Protocol):
    """What the callbacks ask and tell: the search that runs."""

    @property
    def decisions(self) -> Decisions:
        """What to do next."""

    def guarded(self) -> AbstractContextManager[None]:
        """Around everything that Ray calls back: keeps the error itself."""

    def tick(self) -> None:
        """Called some ten times a second."""

    def hear(self, number: int, message: dict[str, Any], stopped: bool) -> None:
        """A trial said something; `stopped`: the scheduler ends it for what it said."""


class _NotKept:
    """Ray pickles what it is given, to restore it one day. This is never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class RowSearcher(_NotKept, Searcher):  # type: ignore[misc]  # Ray is not typed
    """Hands Ray the driver's rows."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> Any:
        """The next row, `FINISHED`, or None for "ask again later"."""
        with self._driver.guarded():
            row = self._driver.decisions.next_row()
        if row is not None:
            task = Task(row.number, row.config, row.last_epoch)
            return {"row": row.number, "task": json.dumps(asdict(task))}
        return Searcher.FINISHED if self._driver.decisions.has_no_more else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The listener hears it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""


class EndStopper(_NotKept, tune.Stopper):  # type: ignore[misc]
    """Ends Ray's run when the driver has left; else a trial that waits for a lost node's memory would hold it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: Any) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether to end."""
        return self._driver.decisions.has_left


class Listener(_NotKept, tune.Callback):  # type: ignore[misc]
    """Hands the driver what Ray hears from the trials."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Some ten times a second."""
        with self._driver.guarded():
            self._driver.tick()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """A trial said something."""
        with self._driver.guarded():
            self._driver.hear(trial.config["row"], result["message"], stopped=bool(result.get("done")))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process is done with."""
        with self._driver.guarded():
            self._driver.decisions.left(trial.config["row"])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process was lost, and Ray begins it again."""
        with self._driver.guarded():
            self._driver.decisions.restarted(trial.config["row"], _last_words(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process was lost once too often."""
        with self._driver.guarded():
            self._driver.decisions.lost(trial.config["row"], _last_words(trial))
            self._driver.decisions.left(trial.config["row"])


def trial_name(trial: Any) -> str:
    """What Ray calls a trial, and its folder."""
    return f"row-{trial.config['row']:05d}-{trial.trial_id}"


def _last_words(trial: Any) -> str:
    """The last line of the error that ended a trial's process, from the file that Ray keeps beside the driver."""
    with contextlib.suppress(OSError, TypeError):
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
    return "no word of why"
