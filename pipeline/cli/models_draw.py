"""`seqpipe models draw`: what a model is made of, as a picture."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json, short_path


def add_to(models: typer.Typer) -> None:
    """Add the command to `models`."""
    models.command("draw", epilog="Example: seqpipe models draw --model small --depth 3 --out pictures/small")(draw)


def draw(
    model: Annotated[options.Model | None, typer.Option("--model", "-m", help="Which model.")] = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    depth: Annotated[
        int,
        typer.Option("--depth", min=1, max=3, help="1: stem, levels, head; 2: their blocks; 3: inside those."),
    ] = 2,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to: OUT.svg and OUT.png. Default: the model's name.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Draw a model's layers: shapes, parameters, shares of the arithmetic and of the memory of training.

    With --json its layers are written to stdout, and a picture only where --out says so.
    """
    from pipeline.config.resolution import resolve
    from pipeline.evaluation.model_picture import draw_model, portrait_of, save_picture
    from pipeline.workspace.durable_files import replacing, writing

    resolved = resolve(model.value if model else None, config, set_ or (), {})
    portrait = portrait_of(resolved, depth)
    out = out if out is not None or as_json else Path(resolved.model.name)
    if out is not None:
        figure = draw_model(portrait)
        name = out.stem if out.suffix in (".svg", ".png") else out.name
        formats: tuple[Literal["svg", "png"], ...] = ("svg", "png")
        for format in formats:
            path = out.with_name(f"{name}.{format}")
            with writing(path), replacing(path) as beside:
                save_picture(figure, beside, format)
            if not as_json:
                emit(short_path(path))
    if as_json:
        emit_json(portrait.to_json())
