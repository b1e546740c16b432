"""The runs of a workspace as `seqpipe runs` lists and delivers them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking import delivery_state, store_file
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class ListedRun:
    """A run, its id in the store if it has one, and whether the store has all of it."""

    key: str
    name: str
    status: Status
    run_id: str | None
    delivered: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class DeliveryResult:
    """How many runs were pending, how many of them were delivered, and why not all."""

    pending: int
    delivered: int
    problem: SeqpipeError | None = None


def list_runs(workspace: Workspace, settings: ResolvedMlflow) -> list[ListedRun]:
    """Every run of a workspace, by key."""
    listed = []
    for record in delivery_state.every(workspace):
        store = None if settings.is_gone else delivery_state.read_store(workspace, record.key, settings.address)
        run_id = store.run_id if store else None
        listed.append(ListedRun(record.key, record.name, record.status, run_id, not record.is_pending_for(store)))
    return listed


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
