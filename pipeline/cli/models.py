"""`seqpipe models`: the registered models, who is champion, and what models are made of."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.cli import models_champion, models_draw, models_export, models_gate, options
from pipeline.cli.console import emit, emit_json, table
from pipeline.percent import percent

if TYPE_CHECKING:
    from pipeline.tracking.version_list import ListedVersion

models = typer.Typer(
    help="The registered models: list them, make one champion, go back; and what models are made of.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    models.command("list", epilog="Example: seqpipe models list")(show_all)
    models.command("show", epilog="Example: seqpipe models show champion")(show)
    models_champion.add_to(models)
    models_gate.add_to(models)
    models_draw.add_to(models)
    models_export.add_to(models)
    app.add_typer(models, name="models")


def show_all(name: options.ModelName = None, as_json: options.Json = False) -> None:
    """List the versions of every registered model, or of one, the newest first."""
    from pipeline.cli.registry import registry
    from pipeline.tracking.version_choice import choose_model
    from pipeline.tracking.version_list import registered_models, versions_of

    with registry() as connection:
        client = connection.client(to_write=False)
        names = registered_models(client)
        names = names if name is None else [choose_model(name, names)]
        found = {one: versions_of(client, one) for one in names}
    if as_json:
        emit_json({"models": [{"name": one, "versions": [each.to_json() for each in found[one]]} for one in names]})
        return
    if not names:
        emit("no model is registered here yet: `seqpipe run all` trains one and registers it")
    for one in names:
        table(["version", "alias", "model", "test accuracy", "registered", "run"], [*_rows(found[one])], title=one)


def show(version: options.VersionWord = "champion", as_json: options.Json = False) -> None:
    """Show one version: its figures, what the gate said of it, where it comes from, where its files are."""
    from pipeline.cli.registry import registry
    from pipeline.tracking.model_versions import find_version
    from pipeline.tracking.version_choice import VersionChoice
    from pipeline.tracking.version_list import versions_of

    choice = VersionChoice.parse(version)
    with registry() as connection:
        client = connection.client(to_write=False)
        chosen = find_version(choice, connection)
        found = next(one for one in versions_of(client, chosen.name) if one.version == chosen.number)
    if as_json:
        emit_json(found.to_json())
        return
    shown = {
        "registered model": found.name,
        "version": " ".join([found.version, *found.aliases]),
        "description": found.description.partition("\n")[0],
        "registered": _when(found.created_ms),
        "MLflow run": found.run_id,
        **dict(sorted(found.tags.items())),
        "files": f"gone from {found.files_gone_from}" if found.files_gone_from else "",
    }
    heading, *rows = [[key, value] for key, value in shown.items() if value]
    table(heading, rows)


def _rows(versions: "Sequence[ListedVersion]") -> Iterator[list[str]]:
    for one in versions:
        alias = ", ".join(one.aliases) + ("; files gone" if one.files_gone_from else "")
        yield [one.version, alias, one.model, percent(one.accuracy), _when(one.created_ms), one.run_key or one.run_id]


def _when(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))
