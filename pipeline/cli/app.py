"""`seqpipe`: the root of the command line, and where errors become exit codes.

Nothing heavy is imported here or by the command modules: `seqpipe --help` must answer at once.
"""

import os
import signal
import sys
import traceback
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer

from pipeline.cli import config, doctor, gc, run, status, ui
from pipeline.cli.console import complain
from pipeline.errors import InterruptedRunError, SeqpipeError

app = typer.Typer(
    name="seqpipe",
    help="Train and tune BiLSTM image classifiers (Sequencer2D) on CIFAR-10, tracked in MLflow.",
    epilog="Start with `seqpipe run all`. Repeating a command resumes it. Exit codes are listed in the README.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add_to(app)
status.add_to(app)
config.add_to(app)
doctor.add_to(app)
gc.add_to(app)
ui.add_to(app)


def _version(asked: bool) -> None:
    if asked:
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


def main() -> None:
    """Run the command line; the one place that exits."""
    debug = "--debug" in sys.argv[1:]
    if debug:  # wherever it was written
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    # Threads of torch that spin while they wait take the cores from each other as soon as anything else runs: beside
    # another busy process small trained at 42 images/s spinning, at 311 sleeping. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        app()
    except SeqpipeError as error:
        if debug:
            traceback.print_exc()
        complain(f"seqpipe: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(
            f"seqpipe: unexpected error: {type(error).__name__}: {' '.join(str(error).split())[:300]}\n"
            "This is a fault in seqpipe; --debug shows where. What was saved before it is kept."
        )
        sys.exit(1)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError("interrupted", number)
