"""`seqpipe runs`: what MLflow was told of the runs of this workspace, and telling it the rest."""

from typing import TYPE_CHECKING

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from pipeline.tracking.settings import ResolvedMlflow

runs = typer.Typer(
    help="List the runs of this workspace, or deliver what MLflow was not told yet.", no_args_is_help=True
)


def waiting_line(mlflow: "ResolvedMlflow", waiting: int) -> str:
    """That some runs were not delivered yet, and what keeps them, as far as a look at a local store tells."""
    from pipeline.tracking import store_file

    what = f"{waiting} run(s) have figures that MLflow was not told yet"
    if (fault := store_file.fault_of(mlflow)) is not None:
        return f"{what}: {fault}"
    return f"{what}; the next `seqpipe run`, or `seqpipe runs deliver`, tells it"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(runs, name="runs")


@runs.command("list")
def show(as_json: options.Json = False) -> None:
    """List every run, its status, and whether MLflow knows all of it."""
    from pipeline.tracking import delivery_state
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    address = mlflow.address
    waiting = {record.key for record in delivery_state.pending(workspace, address, is_gone=mlflow.is_gone)}
    rows = []
    for record in delivery_state.every(workspace):
        store = None if mlflow.is_gone else delivery_state.read_store(workspace, record.key, address)
        rows.append(
            {
                "key": record.key,
                "name": record.name,
                "status": record.status,
                "run_id": store.run_id if store else None,
                "delivered": record.key not in waiting,
            }
        )
    if as_json:
        emit_json({"tracking_uri": address, "runs": rows})
    elif rows:
        table(
            ["run", "status", "MLflow id", "delivered"],
            [
                [str(row["name"]), str(row["status"]), str(row["run_id"] or "-"), "yes" if row["delivered"] else "no"]
                for row in rows
            ],
        )
        if waiting:
            emit(waiting_line(mlflow, len(waiting)))
    else:
        emit("no runs here yet")


@runs.command("deliver")
def deliver(as_json: options.Json = False) -> None:
    """Tell MLflow what it missed while it could not be used. Exit code 1 if some of it could not be delivered."""
    from pipeline.errors import TrackingError
    from pipeline.tracking.delivery import Tracker
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    settings = store_of(workspace)
    said: list[str] = []
    tracker = Tracker(settings, workspace, on_problem=said.append)
    waiting = len(tracker.waiting())
    delivered = tracker.deliver_pending() if waiting else 0
    for problem in said:
        if problem != str(tracker.problem):  # which ends the command
            complain(problem)
    if as_json:
        emit_json({"tracking_uri": settings.address, "waiting": waiting, "delivered": delivered})
    elif waiting:
        emit(f"{delivered} of {waiting} runs delivered to {settings.address}")
    else:
        emit("nothing to deliver: MLflow knows every run")
    if tracker.problem is not None:
        raise tracker.problem
    if delivered < waiting:
        raise TrackingError("another command is at work on the others, and delivers them")
