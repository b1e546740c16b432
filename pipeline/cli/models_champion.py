"""`seqpipe models promote | rollback | history`: who is champion, and who was."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json, table

if TYPE_CHECKING:
    from pipeline.tracking.champion_history import Change

LONGEST_WHY = 1000
"""Characters of a reason; MLflow's tags end at 5000, all of a change included."""


def _reason(text: str) -> str:
    """A reason that a tag can hold."""
    if len(text) > LONGEST_WHY:
        raise typer.BadParameter(f"a reason of {len(text)} characters: at most {LONGEST_WHY} are kept")
    return text


Why = Annotated[str, typer.Option("--why", help="Why, for the history.", show_default=False, callback=_reason)]


def add_to(models: typer.Typer) -> None:
    """Add the commands to `models`."""
    models.command("promote", epilog='Example: seqpipe models promote 3 --why "better on the cats"')(promote)
    models.command("rollback", epilog='Example: seqpipe models rollback --why "it takes birds for planes"')(rollback)
    models.command("history", epilog="Example: seqpipe models history")(history)


def promote(version: options.VersionWord, why: Why = "", as_json: options.Json = False) -> None:
    """Make a version champion because you say so, and enter that in the history.

    `seqpipe models gate` does it only if the comparison with the champion lets it through.
    """
    from pipeline.cli.registry import registry
    from pipeline.tracking.champion_store import champion_store
    from pipeline.tracking.champions import Reason, make_champion, registry_lock
    from pipeline.tracking.model_versions import find_version, require_files
    from pipeline.tracking.version_choice import VersionChoice

    choice = VersionChoice.parse(version)
    with registry(to_write=True) as connection, registry_lock(connection.workspace):
        store = champion_store(connection, to_write=True)
        found = find_version(choice, connection)
        require_files(found)
        run = store.versions(found.name)[found.number].run
        was = store.model(found.name).champion
        changes = make_champion(store, found.name, found.number, Reason("promoted", why, run))
    if was == found.number and not as_json:
        emit(f"{found.name}: version {found.number} is champion already")
    else:
        _show_last(found.name, changes, as_json)


def rollback(name: options.ModelName = None, why: Why = "", as_json: options.Json = False) -> None:
    """Make the champion before the present one champion again; once more: the one before that."""
    from pipeline.cli.registry import registry
    from pipeline.tracking.champion_store import champion_store
    from pipeline.tracking.champions import registry_lock, roll_back
    from pipeline.tracking.version_choice import choose_model

    with registry(to_write=True) as connection, registry_lock(connection.workspace):
        store = champion_store(connection, to_write=True)
        model = choose_model(name, store.names())
        changes = roll_back(store, model, why)
    _show_last(model, changes, as_json)


def history(name: options.ModelName = None, as_json: options.Json = False) -> None:
    """Show who was champion when, why, from which run and by which comparison, the newest first."""
    from pipeline.cli.registry import registry
    from pipeline.tracking import champions
    from pipeline.tracking.champion_store import champion_store
    from pipeline.tracking.version_choice import choose_model

    with registry() as connection:
        store = champion_store(connection, to_write=False)
        model = choose_model(name, store.names())
        changes = champions.history(store, model)
    if as_json:
        emit_json({"name": model, "changes": [_to_json(change) for change in changes]})
        return
    if not changes:
        emit(f"{model} never had a champion")
        return
    rows = [
        [change.at, change.version or "none", change.kind, change.who, change.why, change.run, change.comparison]
        for change in reversed(changes)
    ]
    table(["when", "champion", "how", "who", "why", "run", "comparison"], rows, title=model)


def _show_last(name: str, changes: "Sequence[Change]", as_json: bool) -> None:
    last = changes[-1]
    if as_json:
        emit_json({"name": name, **_to_json(last)})
        return
    before = changes[-2].version if len(changes) > 1 else None
    emit(f"{name}: version {last.version} is champion" + (f", it was version {before}" if before else ""))


def _to_json(change: "Change") -> dict[str, object]:
    shown = dict(vars(change))
    del shown["key"], shown["is_done"]
    return shown
