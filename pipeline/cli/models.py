"""`seqpipe models`: the registered models, who is champion, who was, and making another one champion."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, percent, table
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipeline.tracking.champion_history import Change
    from pipeline.tracking.model_versions import Version
    from pipeline.workspace.paths import Workspace

models = typer.Typer(help="The registered models: list them, make one champion, go back.", no_args_is_help=True)

Which = Annotated[
    str, typer.Argument(metavar="VERSION", help="`champion`, `3`, `NAME@champion` or `NAME/3`.", show_default=False)
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The registered model; left out: the only one.", show_default=False),
]
Why = Annotated[str, typer.Option("--why", help="Why, for the history.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(models, name="models")


@models.command("list", epilog="Example: seqpipe models list")
def show_all(name: Name = None, as_json: options.Json = False) -> None:
    """List the versions of every registered model, or of one, the newest first."""
    from pipeline.tracking.model_versions import registered_models, versions_of, which_model

    with _registry() as (client, _):
        names = registered_models(client) if name is None else [which_model(client, name)]
        found = {one: versions_of(client, one) for one in names}
    if as_json:
        emit_json({"models": [{"name": one, "versions": [each.to_json() for each in found[one]]} for one in names]})
        return
    if not names:
        emit("no model is registered yet; `seqpipe run all` trains and registers one")
    for one in names:
        table(["version", "alias", "model", "test accuracy", "registered", "run"], list(_rows(found[one])), title=one)


@models.command("show", epilog="Example: seqpipe models show champion")
def show(version: Which = "champion", as_json: options.Json = False) -> None:
    """Show one version: its figures, where it comes from, where its files are."""
    from pipeline.tracking.model_versions import find

    with _registry() as (client, _):
        found = find(client, version)
    if as_json:
        emit_json(found.to_json())
        return
    shown = {
        "model": found.name,
        "version": f"{found.version} {' '.join(found.aliases)}".strip(),
        "description": found.description,
        "registered": _when(found.created_ms),
        "MLflow run": found.run_id,
        **dict(sorted(found.tags.items())),
    }
    if found.files_gone_from:
        shown["files"] = f"gone from {found.files_gone_from}"
    table(["", ""], [[key, value] for key, value in shown.items() if value])


@models.command("promote", epilog='Example: seqpipe models promote 3 --why "better on the cats"')
def promote(version: Which, why: Why = "", as_json: options.Json = False) -> None:
    """Make a version champion, and enter that in the history."""
    from pipeline.errors import TrackingError
    from pipeline.tracking.champions import Reason, make_champion, registry_lock
    from pipeline.tracking.model_versions import find

    with _registry(to_write=True) as (client, workspace), registry_lock(workspace):
        found = find(client, version)
        if found.files_gone_from:
            raise TrackingError(
                f"version {found.version} cannot be champion: its files are gone from {found.files_gone_from}"
            )
        reason = Reason("promoted", why, run=found.run_key or found.run_id)
        changes = make_champion(client, found.name, found.version, reason)
    _show_last(found.name, changes, as_json)


@models.command("rollback", epilog='Example: seqpipe models rollback --why "it takes birds for planes"')
def rollback(name: Name = None, why: Why = "", as_json: options.Json = False) -> None:
    """Make the champion before the present one champion again; again: the one before that."""
    from pipeline.tracking.champions import registry_lock, roll_back
    from pipeline.tracking.model_versions import which_model

    with _registry(to_write=True) as (client, workspace), registry_lock(workspace):
        model = which_model(client, name)
        changes = roll_back(client, model, why)
    _show_last(model, changes, as_json)


@models.command("history", epilog="Example: seqpipe models history")
def history(name: Name = None, as_json: options.Json = False) -> None:
    """Show who was champion when, why, from which run and by which comparison, the newest first."""
    from pipeline.tracking import champions
    from pipeline.tracking.model_versions import which_model

    with _registry() as (client, _):
        model = which_model(client, name)
        changes = champions.history(client, model)
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


@contextmanager
def _registry(*, to_write: bool = False) -> "Iterator[tuple[MlflowClient, Workspace]]":
    """The registry's client; what fails inside is told in one line."""
    from pipeline.errors import ConfigError
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.settings import require_usable
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    settings = store_of(workspace)
    if settings.is_gone:
        raise ConfigError("no model is registered yet; `seqpipe run all` trains and registers one")
    if to_write:
        require_usable(settings)
    connection = StoreConnection(settings, workspace, complain)
    with connection.explaining():
        yield connection.client(to_write=to_write), workspace


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


def _rows(versions: "Sequence[Version]") -> Iterator[list[str]]:
    for one in versions:
        alias = ", ".join(one.aliases) + ("; files gone" if one.files_gone_from else "")
        yield [one.version, alias, one.model, percent(one.accuracy), _when(one.created_ms), one.run_key or one.run_id]


def _when(milliseconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))
