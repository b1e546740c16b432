"""The runs of a workspace as `seqpipe runs` lists and delivers them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking import delivery_state, run_figures, store_file
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.journal import FILE_NAME
from pipeline.tracking.run_figures import RunFigures
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace

REPORT_KEY = "report-"
"""The keys of reports begin so: MLflow has them as runs, but they are none of a model."""


@dataclass(frozen=True)
class ListedRun:
    """A run, its id in the store if it has one, and whether the store has all of it."""

    key: str
    name: str
    status: Status
    run_id: str | None
    delivered: bool
    figures: RunFigures

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(self)
        del plain["figures"]
        return {**self.figures.columns, **plain}


@dataclass(frozen=True)
class DeliveryResult:
    """How many runs were pending, how many of them were delivered, and why not all."""

    pending: int
    delivered: int
    problem: SeqpipeError | None = None


def list_runs(workspace: Workspace, settings: ResolvedMlflow) -> list[ListedRun]:
    """Every run of a workspace, by key; reports are none."""
    listed = []
    for record in delivery_state.every(workspace):
        if record.key.startswith(REPORT_KEY):
            continue
        store = None if settings.is_gone else delivery_state.read_store(workspace, record.key, settings.address)
        run_id = store.run_id if store else None
        journals = [(workspace.root / each.folder / FILE_NAME, each.upto) for each in record.journals.values()]
        figures = run_figures.read(record.name, record.status, journals)
        delivered = not record.is_pending_for(store)
        listed.append(ListedRun(record.key, record.name, record.status, run_id, delivered, figures))
    return listed


def chosen(
    runs: Sequence[ListedRun], where: str | None, sort: str | None, *, reverse: bool = False
) -> list[ListedRun]:
    """Those that meet the conditions, in the order of a column: largest first, or words from a to z.

    Raises:
        ConfigError: a condition that cannot be read, or a name that no run knows.
    """
    wanted = [] if where is None else run_figures.conditions(where)
    if runs:
        names = [condition.name for condition in wanted] + ([] if sort is None else [sort])
        run_figures.check_known(names, [run.figures for run in runs])
    kept = [run for run in runs if all(condition.holds(run.figures) for condition in wanted)]
    if sort is not None:
        kept.sort(key=lambda run: run_figures.sort_key(run.figures, sort))
    return kept[::-1] if reverse else kept


def pending_text(settings: ResolvedMlflow, pending: int) -> str:
    """That some runs are not delivered yet, and why a local store cannot be used, if so."""
    what = f"{pending} run(s) have figures that MLflow does not have yet"
    if (fault := store_file.fault_of(settings)) is not None:
        return f"{what}: {fault}"
    return f"{what}; the next `seqpipe run`, or `seqpipe runs deliver`, delivers them"


def deliver_pending(
    workspace: Workspace, settings: ResolvedMlflow, on_problem: Callable[[str], None]
) -> DeliveryResult:
    """Deliver what the store lacks; `on_problem` gets each line about it except the problem that is returned."""
    reported: list[str] = []
    tracker = Tracker(settings, workspace, on_problem=reported.append)
    pending = len(tracker.pending())
    delivered = tracker.deliver_pending() if pending else 0
    for line in reported:
        if line != str(tracker.problem):
            on_problem(line)
    problem = tracker.problem
    if problem is None and delivered < pending:
        problem = TrackingError("another command is at work on the others, and delivers them")
    return DeliveryResult(pending, delivered, problem)
