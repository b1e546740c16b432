"""`seqpipe`: where the command line begins, and where errors become lines and exit codes.

Nothing that takes time is imported before the signals are taken over: Ctrl-C must never show a traceback.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from pipeline import interrupts
from pipeline.errors import InterruptedRunError, MemoryCapError, SeqpipeError


def main() -> None:
    """Run the command line; the one place that exits."""
    interrupts.take_over()
    debug = "--debug" in sys.argv[1:]
    if debug:  # wherever it was written
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    # Threads of torch that spin while they wait take the cores from each other when another program is busy, and then
    # a step may take seconds. Sleeping ones are steadier, and as fast when alone. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_words(debug))


def run_words(debug: bool) -> int:
    """Run the command that `sys.argv` holds; say what went wrong; its exit code."""
    try:
        code = _command()
        for number in (signal.SIGINT, signal.SIGTERM):  # all is done; only the interpreter's own end is left
            signal.signal(number, signal.SIG_IGN)
    except BaseException as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave_at_once)
        if debug and not isinstance(error, SystemExit):
            import traceback

            traceback.print_exc()
        code = _ending(error)
    return code


def _command() -> int:
    from pipeline.cli.commands import app

    code = app(standalone_mode=False)
    sys.stdout.flush()  # a reader that is gone is noticed here, not at the interpreter's end
    return code if isinstance(code, int) else 0


def _ending(error: BaseException) -> int:
    """Say what ended the command; its exit code."""
    if isinstance(error, (SeqpipeError, InterruptedRunError)):
        from pipeline.cli.console import as_typed

        _complain(as_typed(f"seqpipe: {error}"))
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, BrokenPipeError):  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, MemoryError):
        _complain(
            "seqpipe: out of memory; what was saved before it is kept.\n"
            "Close other programs, or lower --set compute.micro_batch_size=N, and run the same command again."
        )
        return MemoryCapError.exit_code
    if type(error).__name__ == "Abort":  # "no" to a question
        _complain("seqpipe: nothing was done")
        return 1
    if (usage := _usage_line(error)) is not None:
        _complain(usage)
        return 2
    _complain(
        f"seqpipe: unexpected error: {type(error).__name__}: {' '.join(str(error).split())[:300]}\n"
        "This is a fault in seqpipe; --debug shows where. What was saved before it is kept."
    )
    return 1


def _usage_line(error: BaseException) -> str | None:
    """What is wrong with the words of the command, in one line; None for any other error."""
    import typer

    usage: type[Any] = typer.BadParameter.__mro__[1]  # click's UsageError, which Typer does not export
    if not isinstance(error, usage):
        return None
    said = " ".join(error.format_message().replace("Value error, ", "").split())
    context = getattr(error, "ctx", None)
    if context is None:
        return f"seqpipe: {said}"
    if not said:  # no words at all: show what there is
        return str(context.get_help())
    return f"seqpipe: {said} (`{context.command_path} --help` lists what it takes)"


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


def _leave_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
