"""`seqpipe`: the entry point, and the one place where errors become lines and exit codes.

Nothing that takes time is imported before the signal handlers are installed: Ctrl-C must never show a traceback.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import Any

from pipeline import environment, stop
from pipeline.cli import completion, streams
from pipeline.errors import BudgetExhaustedError, InterruptedRunError, MemoryCapError, SeqpipeError


def main() -> None:
    """Run the command line and exit."""
    stop.install()
    streams.take_over()
    debug = "--debug" in sys.argv[1:]
    if debug:  # wherever it stands among the words
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    environment.clean_process()
    with completion.of_whole_words():
        code = run_words(debug)
    waiting = sys.modules.get("tuning.waiting")  # most commands do not load it
    is_stuck = waiting is not None and waiting.is_anything_stuck()  # in native code, which the interpreter waits for
    if is_stuck or code > 128 or code == BudgetExhaustedError.exit_code:
        if not is_stuck:
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # who asked to leave does not wait for torch to be taken apart: a second of processor time
    sys.exit(code)


def run_words(debug: bool) -> int:
    """Run the command that `sys.argv` holds and report what went wrong; its exit code."""
    try:
        code = _command()
        stop.listen(signal.SIG_IGN)  # the work is done; only the interpreter's own exit is left
    except BaseException as error:
        stop.listen(_leave_at_once)
        if debug and not isinstance(error, SystemExit):
            import traceback

            traceback.print_exc()
        code = _ending(_cause(error))
    return code


def _cause(error: BaseException) -> BaseException:
    """What ended the command: an unexpected error after a signal is what native code made of the signal."""
    is_expected = isinstance(error, (SeqpipeError, SystemExit)) or _usage_line(error) is not None
    return error if is_expected else stop.interruption() or error


def _command() -> int:
    from pipeline.cli.commands import app

    code = app(standalone_mode=False, obj=run_words)
    sys.stdout.flush()
    code = code if isinstance(code, int) else 0
    if (why := streams.unwritten()) is None:
        return code
    _complain(f"seqpipe: the result could not be written to standard output ({why}); the same command shows it again")
    return code if _is_work(sys.argv[1:]) else code or 1


def _is_work(words: list[str]) -> bool:
    """Whether a command does more than write its result to stdout."""
    command = next((word for word in words if not word.startswith("-")), "")
    only_shows = {"--json", "--dry-run"} & set(words) or words[:2] == ["cluster", "status"]
    return command in ("run", "tune", "cluster", "ui") and not only_shows


def _ending(error: BaseException) -> int:
    """Report what ended the command; its exit code."""
    if isinstance(error, (SeqpipeError, InterruptedRunError)):
        from pipeline.cli.console import as_typed

        _complain(as_typed(f"seqpipe: {error}"))
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
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
    """One line on what is wrong with the words of the command; None for any other error."""
    import typer

    usage: type[Any] = typer.BadParameter.__mro__[1]  # click's UsageError, which Typer does not export
    if not isinstance(error, usage):
        return None
    said = " ".join(error.format_message().replace("Value error, ", "").split())
    context = getattr(error, "ctx", None)
    if context is None:
        return f"seqpipe: {said}"
    if not said:  # no words at all: list the commands
        return str(context.get_help())
    return f"seqpipe: {said} (`{context.command_path} --help` lists what it takes)"


def _complain(text: str) -> None:
    if not completion.is_asked():  # in the middle of the line that somebody types
        sys.stderr.write(text + "\n")


def _leave_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
