"""`seqpipe models gate`: what the gate says of a registered version, and its promotion if it lets it through."""

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json
from pipeline.cli.store import store_of


def add_to(models: typer.Typer) -> None:
    """Add the command to `models`."""
    models.command("gate", epilog="Example: seqpipe models gate challenger --dry-run")(gate)


def gate(
    version: Annotated[
        str,
        typer.Argument(
            metavar="CHALLENGER",
            help="`challenger`, NAME@challenger or NAME/3.",
            show_default=False,
            autocompletion=options.registered_versions,
        ),
    ] = "challenger",
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would decide; that does not count as a decision.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Ask the gate whether a version may become champion, by the rules in `registry.gate`. Exit code 3 if not.

    Each decision on the same test images makes the next one stricter.
    """
    from pipeline.cli.run_view import show_decision
    from pipeline.config.resolution import resolve
    from pipeline.errors import GateRefusedError
    from pipeline.stages.register import judge_again
    from pipeline.tracking.delivery import Tracker
    from pipeline.tracking.model_versions import find_version, require_files
    from pipeline.tracking.settings import require_usable
    from pipeline.tracking.version_choice import VersionChoice
    from pipeline.workspace.paths import Workspace

    settings = resolve(None, config, set_ or ())
    workspace = Workspace.find()
    mlflow = store_of(workspace, dry_run=dry_run)
    if not dry_run:
        require_usable(mlflow)
    tracker = Tracker(mlflow, workspace, on_problem=complain)
    found = find_version(VersionChoice.parse(version), tracker.connection)
    require_files(found)
    words = f"{found.name}/{found.number}"
    made, decision = judge_again(found.name, int(found.number), settings, tracker, dry_run=dry_run)
    if as_json:
        from dataclasses import asdict

        shown = {"name": made.name, "version": made.version, "aliases": made.aliases, "dry_run": dry_run}
        emit_json(shown | {"decision": asdict(decision) if decision else None})
    elif decision is None:
        emit(f"{words} is the champion's own model: there is nothing to decide")
    else:
        emit(" ".join([words, *made.aliases]))
        show_decision(decision)
    if decision is not None and not decision.promotes:
        would = "would not promote" if dry_run else "did not promote"
        raise GateRefusedError(f"the gate {would} {words}: the champion stays")
