"""What Ray Tune calls during a run: its searcher, stopper and callback, which pass everything on to the decisions."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import search

from tuning.decisions import Decisions
from tuning.on_ray import messages
from tuning.on_ray.trial_task import Task


class FirstError:
    """Keeps the first exception of a callback, since Ray turns it into text."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around everything that Ray calls."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error
            raise


class _NotPickled:
    """Pickles as nothing: Ray pickles its callbacks to restore a run, which never happens here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(_NotPickled, search.Searcher):  # type: ignore[misc]  # Ray is not typed
    """Gives Ray the rows to run, so many of them at most; `tick` is called while it waits for one."""

    def __init__(self, decisions: Decisions, errors: FirstError, tick: Callable[[], None], most: int) -> None:
        super().__init__()
        self._decisions = decisions
        self._errors = errors
        self._tick = tick
        self._left = most

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next row, `FINISHED`, or None for "ask again later"."""
        if self._left == 0:
            return search.Searcher.FINISHED
        with self._errors.kept():
            row = self._decisions.next_row()
            if row is None:
                self._tick()  # without a trial at work Ray asks once a second, and calls nothing else
            while row is None and self._decisions.only_awaits_forecast:
                self._tick()
                row = self._decisions.next_row()
        if row is not None:
            self._left -= 1
            attempt = self._decisions.attempt(row.number)
            return Task.of(row, attempt, self._decisions.memory_mb).to_ray()
        return search.Searcher.FINISHED if self._decisions.has_no_more else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: `Callback` is called too."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is the state."""


class Stopper(_NotPickled, tune.Stopper):  # type: ignore[misc]
    """Ends Ray's run when the search has left; a trial that waits for a lost node's memory would keep it running."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    def __call__(self, trial_id: str, result: Any) -> bool:
        """Never stops a single trial: the scheduler does."""
        return False

    def stop_all(self) -> bool:
        return self._decisions.has_left


class Callback(_NotPickled, tune.Callback):  # type: ignore[misc]
    """Passes on what happens to trials; `tick` is called some ten times a second."""

    def __init__(self, decisions: Decisions, errors: FirstError, tick: Callable[[], None]) -> None:
        self._decisions = decisions
        self._errors = errors
        self._tick = tick
        self._without_row: set[str] = set()
        """Ray's ids of the trials that have given their rows back."""

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        with self._errors.kept():
            self._tick()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """A message came; `done` in its result: the scheduler ends the trial for it."""
        with self._errors.kept():
            message, row = result["message"], trial.config["row"]
            if message["kind"] != messages.GIVES_ROW_BACK["kind"]:
                messages.deliver(message, row, self._decisions, stopped=bool(result.get("done")))
            elif self._decisions.gives_row_back(row, message["attempt"]):
                self._without_row.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        with self._errors.kept():
            if trial.trial_id not in self._without_row:
                self._decisions.left(trial.config["row"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process was lost; Ray never starts it again, since the next attempt is another trial."""
        with self._errors.kept():
            if trial.trial_id in self._without_row:
                return
            self._decisions.lost(trial.config["row"], _last_line_of_error(trial))
            self._decisions.left(trial.config["row"])


def trial_name(trial: Any) -> str:
    """The name that Ray gives a trial and its folder."""
    return f"row-{trial.config['row']:05d}-{trial.trial_id}"


def _last_line_of_error(trial: Any) -> str:
    """Of the file in which Ray keeps the error that ended a trial's process."""
    with contextlib.suppress(OSError, TypeError):
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
    return "no word of why"
