"""The MLflow runs of a search: one run for the search, and one below it for each trial.

Only the driver writes them. Each journal is filled from the ledger's rows, and has each event once: the next command
writes what a killed one did not, and a search that continues or is extended adds to the same runs. Delivery is in the
background: a store that cannot be reached delays nothing.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.keys import flatten, to_yaml
from pipeline.config.schema import RunConfig
from pipeline.provenance import git_commit, versions
from pipeline.search.report import memory_in_words
from pipeline.search.run_journal import RunJournal
from pipeline.search.space import configuration, in_words
from pipeline.search.store import NAME, SearchFolder, trial_folder, trial_key
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.workspace.durable_files import write_atomically, writing
from tuning.ledger import EpochReport, Finish, Outcome, Row
from tuning.observer import Observer, Snapshot, best_row
from tuning.space import Space

STATUS: Mapping[Outcome, Status] = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "memory_cap": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
BEST = "best/validation_accuracy"
"""The metric to sort by: of a trial its best epoch, of the search its best trial."""
_DESCRIPTION = "mlflow.note.content"
_DESCRIPTION_CHARACTERS = 1000


@dataclass(frozen=True)
class SearchMethod:
    """How this command searches, as tags of the run show it."""

    searcher: str
    scheduler: str
    cap_mb: int | None


class SearchRuns(Observer):
    """Writes the journals of a search and of its trials as it goes on, and has them delivered."""

    def __init__(
        self,
        folder: SearchFolder,
        key: str,
        base: RunConfig,
        space: Space,
        method: SearchMethod,
        tracker: Tracker,
    ) -> None:
        self._folder = folder
        self._base = base
        self._space = space
        self._method = method
        self._tracker = tracker
        classes = len(base.data.class_names)
        name = f"search {base.model.name}, {classes} classes, seed {base.seed}"
        self.identity = RunIdentity(key, name, lock=folder.lock_name)
        self._search = RunJournal(tracker, self.identity, folder.path, f"{NAME}/{folder.fingerprint}")
        self._trials: dict[int, RunJournal] = {}
        self._rows: dict[int, Row] = {}
        self._delivers = False
        self._is_started = False

    @property
    def are_recorded(self) -> bool:
        """Whether an earlier command has recorded the runs of the whole search, to its end."""
        return self._search.has("params") and self._search.recorded_status == "FINISHED"

    def ticked(self, snapshot: Snapshot) -> None:
        if not self._is_started:
            self._start(snapshot.rows)

    def started(self, row: Row) -> None:
        if not self._is_started:
            self._start([])
        self._write_trial(row)

    def fitted(self, row: Row) -> None:
        self._write_trial(row)

    def described(self, row: Row) -> None:
        self._write_trial(row)

    def reported(self, row: Row, report: EpochReport) -> None:
        # delivery starts here: loading MLflow's client takes seconds of a core that the first trial's start needs
        self._delivers = True
        self._write_trial(row)

    def finished(self, row: Row) -> None:
        self._delivers = True
        self._write_trial(row)
        self._write_totals()

    def end(
        self,
        rows: Iterable[Row],
        status: Status,
        results: Sequence[tuple[Path, str]],
        description: str,
        timeout_s: float,
    ) -> None:
        """End the runs; `results` are files of the search's folder, each with the folder to show it in.

        What is not delivered within the time is delivered by a later command.
        """
        self._start(rows)
        for path, folder in results:
            self._search.journal.artifact(path, folder)
        self._search.tags({_DESCRIPTION: description})
        self._close(status, timeout_s)

    def abort(self, status: Status, timeout_s: float) -> None:
        """End the runs of a command that ends in an error."""
        if self._is_started:
            self._close(status, timeout_s)

    def _start(self, rows: Iterable[Row]) -> None:
        """Write what describes the search, and what earlier commands left unwritten."""
        self._is_started = True
        if not self._search.has("params"):
            self._describe_search()
        self._search.tags(
            {
                "mlflow.source.name": "seqpipe tune",
                "seqpipe.kind": "search",
                "seqpipe.model": self._base.model.name,
                "seqpipe.search": self._folder.fingerprint,
                "seqpipe.searcher": self._method.searcher,
                "seqpipe.scheduler": self._method.scheduler,
                "seqpipe.memory_cap_mb": str(self._method.cap_mb or "what the node can hold"),
            }
        )
        for row in rows:
            self._write_trial(row)
        self._write_totals()

    def _describe_search(self) -> None:
        self._search.journal.params(
            {
                **{f"space.{key}": in_words(parameter) for key, parameter in self._space.items()},
                "model": self._base.model.name,
                "classes": ", ".join(self._base.data.class_names),
                "epochs": self._base.train.epochs,
                "seed": self._base.seed,
            }
        )
        commit = git_commit()
        tags = {f"version.{name}": version for name, version in versions().items()}
        self._search.journal.tags({**tags, **({"mlflow.source.git.commit": commit} if commit else {})})

    def _write_trial(self, row: Row) -> None:
        """Write what the row has and its journal does not, and deliver it."""
        is_new, self._rows[row.number] = row is not self._rows.get(row.number), row
        if not row.starts and not row.is_infeasible:
            return
        run = self._trials.get(row.number) or self._open_trial(row)
        if is_new:
            self._write(run, row)
        if self._delivers:
            run.deliver()

    def _write(self, run: RunJournal, row: Row) -> None:
        facts = {f"seqpipe.{name}": words for name, words in row.facts.items()}
        run.tags({"seqpipe.node": row.node, "seqpipe.starts": str(row.starts), **facts})
        if row.forecast_mb is not None:
            fitted = {"seqpipe.fitted": row.fitted} if row.fitted else {}
            run.tags({"seqpipe.forecast_memory_mb": f"{row.forecast_mb:.0f}", **fitted})
        best: float | None = None
        for report in row.reports:
            best = report.value if best is None else max(best, report.value)
            run.metrics(
                {
                    "validation/accuracy": report.value,
                    **report.metrics,
                    BEST: best,
                    "peak_memory_mb": report.peak_mb,
                },
                report.epoch,
            )
        if row.finish is None:
            run.tags({"seqpipe.outcome": "running"})
            run.record("RUNNING")
        else:
            run.tags(_end_tags(row.finish))
            # the step after the last epoch; 0 for a trial that failed before its first, since it may be run again
            run.metrics(_end_metrics(row.finish), row.finish.epochs + 1 if row.finish.epochs else 0)
            run.record(STATUS[row.finish.outcome])
            run.forget()

    def _open_trial(self, row: Row) -> RunJournal:
        folder = trial_folder(self._folder.path, row.number)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        key = trial_key(self.identity.key, row.number)
        identity = RunIdentity(key, f"trial {row.number:03d}", self.identity.key, self._folder.lock_name)
        run = RunJournal(self._tracker, identity, folder, f"{NAME}/{self._folder.fingerprint}/{row.number:05d}")
        if not run.has("params"):
            config = configuration(self._base, row.config)
            write_atomically(folder / "config.yaml", to_yaml(config).encode())
            settings = {
                key: value for key, value in flatten(config).items() if not key.startswith(("evaluate.", "registry."))
            }
            # the settings of the space first, so that the columns of the UI offer them first
            run.journal.params({key: settings.pop(key) for key in self._space} | settings)
            run.journal.artifact(folder / "config.yaml")
        run.tags(
            {
                "mlflow.source.name": "seqpipe tune",
                "seqpipe.kind": "trial",
                "seqpipe.model": self._base.model.name,
                "seqpipe.search": self._folder.fingerprint,
                "seqpipe.trial": str(row.number),
                "seqpipe.origin": row.origin,
            }
        )
        self._trials[row.number] = run
        return run

    def _write_totals(self) -> None:
        """Write the number of trials of each outcome, and the best value, as of now."""
        rows = [self._rows[number] for number in sorted(self._rows)]
        outcomes = [row.outcome for row in rows if row.outcome]
        metrics = {f"trials/{outcome}": float(outcomes.count(outcome)) for outcome in STATUS}
        best = best_row(rows, "max")
        if best is not None and best.score is not None:
            metrics[BEST] = best.score
            self._search.tags({"seqpipe.best_trial": f"{best.number:03d}"})
        if outcomes:
            self._search.metrics(metrics, sum(row.ends for row in rows))
        self._search.record("RUNNING")
        if self._delivers:
            self._search.deliver()

    def _close(self, status: Status, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for trial in self._trials.values():
            if trial.is_open:
                trial.close("KILLED", until)
            else:
                trial.wait(until)
        self._search.close(status, until)


def _end_tags(finish: Finish) -> dict[str, str]:
    tags = {
        "seqpipe.outcome": finish.outcome,
        "seqpipe.node": finish.node,
        "seqpipe.memory_cap_mb": f"{finish.cap_mb:.0f}",
    }
    text = memory_in_words(finish) if finish.outcome == "memory_cap" else finish.error
    return tags | {_DESCRIPTION: f"**{finish.outcome}**: {text[:_DESCRIPTION_CHARACTERS]}" if text else ""}


def _end_metrics(finish: Finish) -> dict[str, float]:
    return {
        "forecast_memory_mb" if finish.is_forecast else "peak_memory_mb": finish.peak_mb,
        "duration_s": finish.duration_s,
        "epochs": float(finish.epochs),
    }
