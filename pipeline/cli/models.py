"""`seqpipe models`: the registered models."""

import typer

from pipeline.cli import models_gate

models = typer.Typer(help="The registered models: what the gate says of one.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    models_gate.add_to(models)
    app.add_typer(models, name="models")


@models.callback()
def _group() -> None:
    """A group though it has one command only."""
