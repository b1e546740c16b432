"""`seqpipe gc`: what old stage folders hold."""

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json, table


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("gc")(gc)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the folders hold; the one thing that this command does.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what the stage folders of this workspace hold, and which are no longer the newest. Removes nothing yet."""
    from pipeline import retention
    from pipeline.errors import ConfigError
    from pipeline.workspace import Workspace

    if not dry_run:
        raise ConfigError("gc removes nothing in this version; run `seqpipe gc --dry-run` to see what folders hold")
    holdings = retention.holdings(Workspace.find())
    if as_json:
        emit_json({"folders": [holding.to_json() for holding in holdings]})
        return
    if not holdings:
        emit("no stage folders here")
        return
    table(
        ["stage", "folder", "size", "state", "holds"],
        [[one.stage, one.folder.name, f"{one.bytes / 1e6:.1f} MB", one.state, one.holds] for one in holdings],
    )
    old = [one for one in holdings if one.state == "superseded"]
    emit(
        f"{len(holdings)} folders, {sum(one.bytes for one in holdings) / 1e6:.1f} MB in all; "
        f"{len(old)} superseded, {sum(one.bytes for one in old) / 1e6:.1f} MB"
    )
