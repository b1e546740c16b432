"""`seqpipe status`: each stage up to date, stale and why, or partial and how far."""

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.store import store_of


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("status")(status)


def status(
    model: Annotated[
        list[options.Model] | None, typer.Option("--model", "-m", help="Which model; repeat it for several.")
    ] = None,
    recipe: options.RecipeOption = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Show what is up to date, stale (and why), or unfinished, and every search of a model.

    Without --model: every model, under these settings; without any, under those of its last run here.
    """
    from pipeline.cli import status_view
    from pipeline.maintenance.status import Settings, status_of
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    asked = Settings(options.names_of(model), config, set_ or (), seed, recipe.value if recipe else None)
    status_view.show(status_of(workspace, mlflow, asked), mlflow, as_json)
