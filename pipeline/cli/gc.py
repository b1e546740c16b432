"""`seqpipe gc`: remove what nothing needs any more."""

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("gc")(gc)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and why the rest stays.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Remove what nothing needs: superseded searches, superseded trainings that no version was registered of.

    With a training go its report and predictions. What is in use, unfinished work, the newest of each kind, and what
    MLflow was not told yet stay.
    """
    from pipeline.maintenance import gc
    from pipeline.tracking.delivery import Tracker
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    tracker = Tracker(mlflow, workspace, on_problem=complain)
    verdicts = gc.judge(workspace, mlflow.address, lambda: gc.registered_run_keys(tracker, on_problem=complain))
    going = [one for one in verdicts if one.goes] if dry_run else gc.remove(verdicts)
    freed = sum(one.bytes for one in going)
    if as_json:
        shown = verdicts if dry_run else going
        emit_json({"removed": not dry_run, "bytes": freed, "items": [one.to_json() for one in shown]})
        return
    rows = verdicts if dry_run else going
    if rows:
        table(
            ["what", "name", "size", "", "why"],
            [
                [one.what, one.path.name, f"{one.bytes / 1e6:.1f} MB", "goes" if one.goes else "stays", one.why]
                for one in rows
            ],
        )
    if not going:
        emit("nothing to remove: everything here is needed" if verdicts else "nothing here to remove")
    else:
        emit(f"{len(going)} {'would go' if dry_run else 'removed'}: {freed / 1e6:.1f} MB")
