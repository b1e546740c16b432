"""`seqpipe runs`: list the runs of this workspace, and deliver what MLflow lacks."""

import typer

from pipeline.cli import compare, options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of

runs = typer.Typer(
    help="List and compare the runs of this workspace, or deliver what MLflow does not have yet.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    compare.add_to(runs)
    app.add_typer(runs, name="runs")


@runs.command("list")
def show(as_json: options.Json = False) -> None:
    """List every run, its status, and whether MLflow has all of it."""
    from pipeline.tracking.run_list import list_runs, pending_text
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    listed = list_runs(workspace, mlflow)
    if as_json:
        emit_json({"tracking_uri": mlflow.address, "runs": [run.to_json() for run in listed]})
        return
    if not listed:
        emit("no runs here yet")
        return
    table(
        ["run", "status", "MLflow id", "delivered"],
        [[run.name, run.status, run.run_id or "-", "yes" if run.delivered else "no"] for run in listed],
    )
    if pending := [run for run in listed if not run.delivered]:
        emit(pending_text(mlflow, len(pending)))


@runs.command("deliver")
def deliver(as_json: options.Json = False) -> None:
    """Deliver what MLflow missed while it could not be used. Exit code 1 if some of it could not be delivered."""
    from pipeline.tracking.run_list import deliver_pending
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    result = deliver_pending(workspace, mlflow, complain)
    if as_json:
        emit_json({"tracking_uri": mlflow.address, "waiting": result.pending, "delivered": result.delivered})
    elif result.pending:
        emit(f"{result.delivered} of {result.pending} runs delivered to {mlflow.address}")
    else:
        emit("nothing to deliver: MLflow has every run")
    if result.problem is not None:
        raise result.problem
