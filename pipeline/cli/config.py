"""`seqpipe config`: show the resolved settings, or what can be set."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json


class What(StrEnum):
    """What to show."""

    show = "show"
    schema = "schema"


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("config")(show)


def show(
    what: Annotated[
        What, typer.Argument(help="show: the resolved settings as YAML for --config; schema: their JSON Schema.")
    ] = What.show,
    model: Annotated[options.Model | None, typer.Option("--model", "-m", help="Which model.")] = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    device: options.DeviceOption = None,
    as_json: options.Json = False,
) -> None:
    """Show the resolved settings, or what can be set."""
    from pipeline.config.keys import to_yaml
    from pipeline.config.resolution import resolve
    from pipeline.config.schema import RunConfig

    if what is What.schema:
        emit_json(RunConfig.model_json_schema())
        return
    flags = {"seed": seed, "compute.device": device.value if device else None}
    resolved = resolve(model.value if model else None, config, set_ or (), flags)
    if as_json:
        emit_json(resolved.model_dump(mode="json"))
    else:
        emit(to_yaml(resolved).rstrip())
