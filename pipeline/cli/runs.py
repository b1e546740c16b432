"""`seqpipe runs`: list the runs of this workspace, and deliver what MLflow lacks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import compare, options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of
from pipeline.percent import percent

if TYPE_CHECKING:
    from pipeline.tracking.run_list import ListedRun

runs = typer.Typer(
    help="List and compare the runs of this workspace, or deliver what MLflow does not have yet.",
    no_args_is_help=True,
)

_HEADINGS = (
    "run", "status", "accuracy", "validation", "loss", "parameters", "minutes", "MB", "started", "MLflow", "delivered"
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    compare.add_to(runs)
    app.add_typer(runs, name="runs")


@runs.command("list", epilog="Example: seqpipe runs list --where 'model=small and accuracy>0.9' --sort accuracy")
def show(
    where: Annotated[
        str | None,
        typer.Option("--where", help="Only these: `model=small and accuracy>0.9`; any column, setting or metric."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="In the order of a column: largest first, words from a to z.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the result as CSV to stdout.")] = False,
    as_json: options.Json = False,
) -> None:
    """List every run: its figures, its status, and whether MLflow has all of it."""
    from pipeline.errors import ConfigError
    from pipeline.tracking.run_list import chosen, list_runs, pending_text
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    if as_csv and as_json:
        raise ConfigError("--csv and --json: give one of them")
    every = list_runs(workspace, mlflow)
    listed = chosen(every, where, sort, reverse=reverse)
    if as_csv:
        _write_csv(listed)
        return
    if as_json:
        emit_json({"tracking_uri": mlflow.address, "runs": [run.to_json() for run in listed]})
        return
    if not listed:
        emit("none of the runs is like that" if every else "no runs here yet")
        return
    table(_HEADINGS, [_row(run) for run in listed])
    if pending := [run for run in every if not run.delivered]:
        emit(pending_text(mlflow, len(pending)))


def _row(run: "ListedRun") -> list[str]:
    columns = run.figures.columns

    def number(name: str, form: str) -> str:
        value = columns.get(name)
        return format(value, form) if isinstance(value, (int, float)) else "-"

    def share(name: str) -> str:
        value = columns.get(name)
        return percent(value) if isinstance(value, float) else "-"

    return [
        run.name,
        run.status,
        *(
            percent(value) if isinstance(value := columns.get(name), float) else "-"
            for name in ("accuracy", "validation")
        ),
        number("loss", ".4f"),
        number("parameters", ",.0f"),
        number("minutes", ".1f"),
        number("memory_mb", ".0f"),
        str(columns.get("started", "-")),
        (run.run_id or "-")[:8],
        "yes" if run.delivered else "no",
    ]


def _write_csv(runs: "Sequence[ListedRun]") -> None:
    import csv
    import sys

    from pipeline.tracking.run_figures import COLUMNS

    names = [*COLUMNS, "key", "run_id", "delivered"]
    writer = csv.DictWriter(sys.stdout, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(run.to_json() for run in runs)


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
