"""What MLflow is told of a search: one run for it, one below it for each trial, written by the driver alone.

Every journal is made from the ledger's rows and holds what a row came to, each thing once. So whatever a killed
command had still to write is written by the next one, and repeating, restoring or extending a search adds to the same
runs. Delivery is the courier's: a store that cannot be reached holds nothing up.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.keys import flatten, to_yaml
from pipeline.config.schema import RunConfig
from pipeline.provenance import git_commit, versions
from pipeline.search.report import memory_in_words
from pipeline.search.space import configuration, in_words
from pipeline.search.store import NAME, SearchPlace
from pipeline.search.told_run import ToldRun
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.workspace.durable_files import write_atomically, writing
from tuning.ledger import EpochReport, Finish, Outcome, Row
from tuning.observer import Observer, State, best_row
from tuning.space import Space

STATUS: Mapping[Outcome, Status] = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "memory_cap": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
BEST = "best_validation_accuracy"
"""The figure to sort by: of a trial its best epoch's, of the search its best trial's."""
_NOTE_CHARACTERS = 1000


@dataclass(frozen=True)
class SearchedBy:
    """How this command searches, as far as the run's page shows it."""

    searcher: str
    scheduler: str
    cap_mb: int | None


class SearchRuns(Observer):
    """Keeps the journals of a search and its trials, and has them delivered."""

    def __init__(
        self,
        place: SearchPlace,
        key: str,
        base: RunConfig,
        space: Space,
        by: SearchedBy,
        tracker: Tracker,
    ) -> None:
        self._place = place
        self._base = base
        self._space = space
        self._by = by
        self._tracker = tracker
        classes = len(base.data.class_names)
        name = f"search {base.model.name}, {classes} classes, seed {base.seed}"
        self.identity = RunIdentity(key, name, lock=place.lock_name)
        self._search = ToldRun(tracker, self.identity, place.folder, f"{NAME}/{place.fingerprint}")
        self._trials: dict[int, ToldRun] = {}
        self._rows: dict[int, Row] = {}
        self._delivers = False
        self._has_begun = False

    @property
    def is_told_finished(self) -> bool:
        """Whether an earlier command has noted all of it, to the end."""
        return self._search.holds("params") and self._search.noted == "FINISHED"

    def ticked(self, state: State) -> None:
        """Once: write what earlier commands left unwritten."""
        if not self._has_begun:
            self._begin(state.rows)

    def _begin(self, rows: Iterable[Row]) -> None:
        self._has_begun = True
        run = self._search
        if not run.holds("params"):
            data = self._base.data
            run.journal.params(
                {
                    **{f"space.{key}": in_words(parameter) for key, parameter in self._space.items()},
                    "model": self._base.model.name,
                    "classes": ", ".join(data.class_names),
                    "epochs": self._base.train.epochs,
                    "seed": self._base.seed,
                }
            )
            commit = git_commit()
            tags = {f"version.{name}": version for name, version in versions().items()}
            run.journal.tags({**tags, **({"mlflow.source.git.commit": commit} if commit else {})})
        run.tags(
            {
                "mlflow.source.name": "seqpipe tune",
                "seqpipe.kind": "search",
                "seqpipe.model": self._base.model.name,
                "seqpipe.search": self._place.fingerprint,
                "seqpipe.searcher": self._by.searcher,
                "seqpipe.scheduler": self._by.scheduler,
                "seqpipe.memory_cap_mb": str(self._by.cap_mb or "what the node can hold"),
            }
        )
        for row in rows:
            self._bring_up(row)
        self._sum_up()

    def started(self, row: Row) -> None:
        """A trial runs."""
        if not self._has_begun:
            self._begin([])
        self._bring_up(row)

    def reported(self, row: Row, report: EpochReport) -> None:
        """An epoch of a trial is done."""
        # from here on, for to load MLflow's client takes seconds of a core that the first trial's start needs
        self._delivers = True
        self._bring_up(row)

    def finished(self, row: Row) -> None:
        """A trial has its end."""
        self._delivers = True
        self._bring_up(row)
        self._sum_up()

    def end(
        self, rows: Iterable[Row], status: Status, results: Sequence[tuple[Path, str]], note: str, timeout_s: float
    ) -> None:
        """The command leaves; `results` are files of the search's folder, each with the folder to show it in.

        What MLflow was not told within the time is kept, and told by a later command.
        """
        self._begin(rows)
        for path, folder in results:
            self._search.journal.artifact(path, folder)
        self._search.tags({"mlflow.note.content": note})
        self._close(status, timeout_s)

    def give_up(self, status: Status, timeout_s: float) -> None:
        """The command ends in an error."""
        if self._has_begun:
            self._close(status, timeout_s)

    def _close(self, status: Status, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for trial in self._trials.values():
            if trial.is_open:
                trial.close("KILLED", until)
            else:
                trial.wait(until)
        self._search.close(status, until)

    def _bring_up(self, row: Row) -> None:
        """Write what a row came to and its journal does not hold."""
        self._rows[row.number] = row
        if not row.starts:
            return
        run = self._trials.get(row.number) or self._open(row)
        run.tags({"seqpipe.node": row.node, "seqpipe.starts": str(row.starts)})
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
            run.note("RUNNING")
        else:
            run.tags(_ending(row.finish))
            # past the last epoch; a trial that failed before its first may be begun again
            run.metrics(_figures(row.finish), row.finish.epochs + 1 if row.finish.epochs else 0)
            run.note(STATUS[row.finish.outcome])
        if self._delivers:
            run.deliver()

    def _open(self, row: Row) -> ToldRun:
        folder = self._place.folder / "trials" / f"{row.number:03d}"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        key = f"{self.identity.key}-{row.number:05d}"
        identity = RunIdentity(key, f"trial {row.number:03d}", self.identity.key, self._place.lock_name)
        run = ToldRun(self._tracker, identity, folder, f"{NAME}/{self._place.fingerprint}/{row.number:05d}")
        if not run.holds("params"):
            config = configuration(self._base, row.config)
            write_atomically(folder / "config.yaml", to_yaml(config).encode())
            settings = {key: value for key, value in flatten(config).items() if not key.startswith("evaluate.")}
            # what was searched comes first, so that the columns of the UI offer it first
            run.journal.params({key: settings.pop(key) for key in self._space} | settings)
            run.journal.artifact(folder / "config.yaml")
        run.tags(
            {
                "mlflow.source.name": "seqpipe tune",
                "seqpipe.kind": "trial",
                "seqpipe.model": self._base.model.name,
                "seqpipe.search": self._place.fingerprint,
                "seqpipe.trial": str(row.number),
                "seqpipe.origin": row.origin,
            }
        )
        self._trials[row.number] = run
        return run

    def _sum_up(self) -> None:
        """The search's own figures after one more trial."""
        rows = [self._rows[number] for number in sorted(self._rows)]
        outcomes = [row.finish.outcome for row in rows if row.finish]
        figures = {f"trials/{outcome}": float(outcomes.count(outcome)) for outcome in STATUS}
        best = best_row(rows, "max")
        if best is not None and best.finish is not None and best.finish.value is not None:
            figures[BEST] = best.finish.value
            self._search.tags({"seqpipe.best_trial": f"{best.number:03d}"})
        if outcomes:
            self._search.metrics(figures, sum(row.ends for row in rows))
        self._search.note("RUNNING")
        if self._delivers:
            self._search.deliver()


def _ending(finish: Finish) -> dict[str, str]:
    tags = {
        "seqpipe.outcome": finish.outcome,
        "seqpipe.node": finish.node,
        "seqpipe.memory_cap_mb": f"{finish.cap_mb:.0f}",
    }
    text = memory_in_words(finish) if finish.outcome == "memory_cap" else finish.error
    return tags | {"mlflow.note.content": f"**{finish.outcome}**: {text[:_NOTE_CHARACTERS]}" if text else ""}


def _figures(finish: Finish) -> dict[str, Any]:
    return {
        "peak_memory_mb": finish.peak_mb,
        "duration_s": finish.duration_s,
        "epochs": float(finish.epochs),
    }
