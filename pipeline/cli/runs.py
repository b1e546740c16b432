"""`seqpipe runs`: what MLflow was told of the runs of this workspace, and telling it the rest."""

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of

runs = typer.Typer(
    help="List the runs of this workspace, or deliver what MLflow was not told yet.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(runs, name="runs")


@runs.command("list")
def show(as_json: options.Json = False) -> None:
    """List every run, its status, and whether MLflow knows all of it."""
    from pipeline import run_records
    from pipeline.workspace import Workspace

    workspace = Workspace.find()
    address = store_of(workspace).address
    waiting = {record.key for record in run_records.pending(workspace, address)}
    rows = []
    for record in run_records.every(workspace):
        store = run_records.read_store(workspace, record.key, address)
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
    else:
        emit("no runs here yet")


@runs.command("deliver")
def deliver(as_json: options.Json = False) -> None:
    """Tell MLflow what it missed while it could not be reached."""
    from pipeline import run_records
    from pipeline.errors import TrackingError
    from pipeline.tracking import Tracker
    from pipeline.workspace import Workspace

    workspace = Workspace.find()
    settings = store_of(workspace)
    waiting = len(run_records.pending(workspace, settings.address))
    delivered = Tracker(settings, workspace, on_problem=complain).deliver_pending() if waiting else 0
    if as_json:
        emit_json({"tracking_uri": settings.address, "waiting": waiting, "delivered": delivered})
    elif waiting:
        emit(f"{delivered} of {waiting} runs delivered to {settings.address}")
    else:
        emit("nothing to deliver: MLflow knows every run")
    if delivered < waiting:
        raise TrackingError("some runs could not be delivered; repeat the command when MLflow answers")
