"""Leaving in order: signals and `--max-time`, asked for at any moment and heeded at a safe one."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import BudgetExhaustedError, InterruptedRunError, SeqpipeError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGHUP: "the terminal was closed"}


class Control:
    """What a long stage asks between two steps: go on, or leave?

    While a stage is `heeding`, the first signal is only noted, and the stage leaves after a checkpoint; a
    second one, or one that comes while no stage is heeding, ends the command at once. `again` says what goes on.
    `began` is when the time began to count, by the monotonic clock; now if not told.
    """

    def __init__(
        self, max_time_s: float | None = None, again: str = "the same command", began: float | None = None
    ) -> None:
        self._again = again
        began = time.monotonic() if began is None else began
        self._deadline = None if max_time_s is None else began + max_time_s
        self._max_time_s = max_time_s
        self._signal: int | None = None
        self._heeding = False

    @contextmanager
    def installed(self) -> Iterator["Control"]:
        """Take the signals over while a command runs (main thread only)."""
        kept = handle(self._arrived)
        try:
            yield self
        finally:
            restore(kept)

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Within this, `reason` is asked often, and a first signal waits for it."""
        self._heeding = True
        try:
            yield
        finally:
            self._heeding = False

    def reason(self) -> SeqpipeError | InterruptedRunError | None:
        """Why to leave, as the error that ends the command; None to go on."""
        if self._signal is not None:
            return self._interrupted(self._signal)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return BudgetExhaustedError(
                f"--max-time of {self._max_time_s:g} s is used up; {self._again} goes on from the checkpoint"
            )
        return None

    def leave_if_asked(self) -> None:
        """Raise the reason to leave, if there is one."""
        if (reason := self.reason()) is not None:
            raise reason

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._heeding and self._signal is None:
            self._signal = number
            return
        raise self._interrupted(number)

    def _interrupted(self, number: int) -> InterruptedRunError:
        return interrupted(number, self._again)


def take_over() -> None:
    """From here on, `SIGNALS` end the process by an `InterruptedRunError` (main thread only)."""
    handle(_end)
    sys.unraisablehook = _not_raised


def handle(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> dict[int, Any]:
    """Have `SIGNALS` handled by this, but for those that this process was started to ignore; the handlers before.

    `nohup` has SIGHUP ignored, a shell without job control Ctrl-C of what it runs in the background.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(kept: dict[int, Any]) -> None:
    """Put back what `handle` returned."""
    for number, handler in kept.items():
        signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    raise interrupted(number)


def interrupted(number: int, again: str = "the same command") -> InterruptedRunError:
    """The error that a signal ends a command with."""
    name = _NAMES.get(signal.Signals(number), signal.Signals(number).name)
    return InterruptedRunError(f"interrupted ({name}); {again} goes on from where it was", number)


def _not_raised(unraisable: "sys.UnraisableHookArgs") -> None:
    """A signal that came while Python ran a finaliser or a callback, where nothing can be raised: send it again."""
    error = unraisable.exc_value
    if isinstance(error, InterruptedRunError):
        again = threading.Timer(0.02, os.kill, (os.getpid(), error.signal_number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
