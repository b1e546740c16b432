"""`seqpipe config`: show the resolved settings, what can be set, or the recipes."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json


class What(StrEnum):
    """What to show."""

    show = "show"
    schema = "schema"
    recipes = "recipes"


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("config")(show)


def show(
    what: Annotated[
        What,
        typer.Argument(
            help="show: the resolved settings as YAML for --config; schema: their JSON Schema; recipes: each recipe, "
            "and what was measured with it."
        ),
    ] = What.show,
    model: Annotated[options.Model | None, typer.Option("--model", "-m", help="Which model.")] = None,
    recipe: options.RecipeOption = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    device: options.DeviceOption = None,
    as_json: options.Json = False,
) -> None:
    """Show the resolved settings, what can be set, or the recipes."""
    from pipeline.config.keys import to_yaml
    from pipeline.config.resolution import resolve
    from pipeline.config.schema import RunConfig

    if what is What.schema:
        emit_json(RunConfig.model_json_schema())
        return
    if what is What.recipes:
        from pipeline.cli.recipes_view import show_recipes

        show_recipes(recipe.value if recipe else None, model.value if model else None, as_json)
        return
    flags = {
        "recipe": recipe.value if recipe else None,
        "seed": seed,
        "compute.device": device.value if device else None,
    }
    resolved = resolve(model.value if model else None, config, set_ or (), flags)
    if as_json:
        emit_json(resolved.model_dump(mode="json"))
    else:
        emit(to_yaml(resolved).rstrip())
