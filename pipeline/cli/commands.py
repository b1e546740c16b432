"""The tree of commands. Each imports what it needs when it runs: `seqpipe --help` must answer at once."""

from typing import Annotated

import typer

from pipeline.cli import cluster, config, doctor, gc, models, predict, report, run, runs, serve, status, tune, ui

app = typer.Typer(
    name="seqpipe",
    help="Train and tune BiLSTM image classifiers (Sequencer2D) on CIFAR-10, tracked in MLflow.",
    epilog="Start with `seqpipe run all`. Repeating a command resumes it. Exit codes are listed in the README.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add_to(app)
tune.add_to(app)
cluster.add_to(app)
status.add_to(app)
runs.add_to(app)
report.add_to(app)
predict.add_to(app)
serve.add_to(app)
models.add_to(app)
config.add_to(app)
doctor.add_to(app)
gc.add_to(app)
ui.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"seqpipe {metadata.version('seqpipe')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options of every command."""
