"""A command under a hard memory cap: it runs once more in a process of its own, the capped one, and this one waits.

This process stays small. The capped one has the same words, the same terminal or pipes, and a session of its own, so
that Ctrl-C reaches this process alone, which passes it on.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from pipeline import stop
from pipeline.errors import MemoryCapError, SeqpipeError

if TYPE_CHECKING:
    from pipeline.config.schema import RunConfig

_began: float | None = None


def is_inside() -> bool:
    """Whether this is the capped process."""
    return _began is not None


def began() -> float | None:
    """When the command started, by the monotonic clock, which processes share; None outside the capped process."""
    return _began


def run_again_under(
    cap_mb: float, run_words: Callable[[bool], int], *, first: Callable[[], object] | None = None
) -> int:
    """Run this command again under the cap; its exit code.

    `run_words` runs the command that `sys.argv` holds, with or without `--debug`. `first` is called in the capped
    process before it is limited: the cap has to be above what that loads.

    Raises:
        MemoryCapError: it was killed at the cap.
        SeqpipeError: it was killed by anything else.
        InterruptedRunError: a signal asked to leave while it started, or for the third time.
    """
    from tuning import machine
    from tuning.capped.run_capped import CapTooLowError, run_capped

    began_at = time.monotonic()
    process = _CappedProcess()
    kills_before = machine.out_of_memory_kills()
    try:
        with process.signals_passed_on():
            capped = run_capped(
                _run,
                run_words,
                sys.argv,
                began_at,
                cap_mb=cap_mb,
                warm_up=first,
                on_message=process.started,
            )
    except CapTooLowError as error:
        raise MemoryCapError(
            f"{cap_mb:.0f} MB are too few: what this command imports takes {error.floor_mb:.0f} MB alone.\n"
            "Give it more with --max-memory-mb."
        ) from None
    if capped.outcome == "completed" and capped.value is not None:
        return capped.value
    if capped.outcome == "memory_cap":
        raise MemoryCapError(
            f"the command held {capped.peak_mb:.0f} MB and was ended at its cap of {cap_mb:.0f} MB; what was "
            "saved before is kept.\nThe same command goes on with a higher --max-memory-mb; --fresh --set "
            "compute.micro_batch_size=N trains anew with fewer images at once."
        )
    if capped.signal == signal.SIGKILL and machine.out_of_memory_kills() > kills_before:
        raise MemoryCapError(
            f"this container's memory ran out below the cap of {cap_mb:.0f} MB, and the kernel ended the command; "
            "what was saved before is kept.\nGive the container more, or end what else runs there; the same command "
            "goes on."
        )
    raise SeqpipeError(
        f"the capped command did not end by itself ({capped.error}); what was saved before is kept.\n"
        "If the machine ran out of memory, close other programs; the same command goes on."
    )


def load_training(config: "RunConfig") -> None:
    """Load what a training needs, before memory is limited; if that fails, the training itself reports it."""
    from pipeline.training.warm_up import warm_up

    with contextlib.suppress(SeqpipeError):
        warm_up(config)


def _run(tell: Callable[[object], None], run_words: Callable[[bool], int], words: list[str], began_at: float) -> int:
    """Run the command, in the capped process."""
    global _began
    from pipeline.cli import streams

    stop.install()
    streams.take_over()
    _began = began_at
    sys.argv = words
    tell(os.getpid())
    code = run_words("--debug" in words)
    stop.listen(signal.SIG_IGN)  # the command has ended; only its exit code is left to report
    return code


class _CappedProcess:
    """The capped process, to which this one passes its signals on."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._passed_on = 0

    def started(self, pid: object) -> None:
        assert isinstance(pid, int)
        self._pid = pid

    @contextlib.contextmanager
    def signals_passed_on(self) -> Iterator[None]:
        """Within this, the signals that this process gets go to the capped one."""
        on_stop = signal.signal(signal.SIGTSTP, self._pause)
        try:
            with stop.listening(self._pass_on):
                yield
        finally:
            signal.signal(signal.SIGTSTP, on_stop)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._passed_on += 1
        if self._pid is None or self._passed_on > 2:
            raise stop.interrupted(number)
        self._send(number)

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: stop the capped process with this one, and continue it with this one."""
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        if self._pid is not None:
            try:
                os.kill(self._pid, number)
            except ProcessLookupError:  # it has just ended, and reports that itself
                self._pid = None
