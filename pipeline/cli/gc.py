"""`seqpipe gc`: remove what nothing needs any more."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, table
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from pipeline.maintenance.gc import Collected


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
    MLflow does not have yet stay.
    """
    from pipeline.maintenance import gc
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    collected = gc.collect(workspace, store_of(workspace), complain, dry_run=dry_run)
    if as_json:
        _emit_json(collected, dry_run)
    else:
        _show(collected, dry_run)


def _emit_json(collected: "Collected", dry_run: bool) -> None:
    shown = collected.decisions if dry_run else collected.removed
    emit_json({"removed": not dry_run, "bytes": collected.bytes, "items": [one.to_json() for one in shown]})


def _show(collected: "Collected", dry_run: bool) -> None:
    rows = [
        [one.what, one.path.name, f"{one.bytes / 1e6:.1f} MB", "goes" if one.removable else "stays", one.why]
        for one in (collected.decisions if dry_run else collected.removed)
    ]
    if rows:
        table(["what", "name", "size", "", "why"], rows)
    if collected.removed:
        done = "would go" if dry_run else "removed"
        emit(f"{len(collected.removed)} {done}: {collected.bytes / 1e6:.1f} MB")
    else:
        emit("nothing to remove: everything here is needed" if collected.decisions else "nothing here to remove")
