"""`seqpipe models`: the registered models, and what the models are made of."""

import typer

from pipeline.cli import models_draw, models_gate

models = typer.Typer(help="The registered models, and what the models are made of.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    models_gate.add_to(models)
    models_draw.add_to(models)
    app.add_typer(models, name="models")
