"""Leaving in order: signals and `--max-time` ask for it at any moment, and are heeded at a safe one."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import BudgetExhaustedError, InterruptedRunError, SeqpipeError

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask to leave: Ctrl-C, `kill`, and a terminal that was closed."""
Handler = Callable[[int, FrameType | None], object]
_has_come = _hung_up = False


@contextmanager
def heard_by(handler: Handler) -> Iterator[None]:
    """Within this, `handler` is called for each signal that asks to leave (main thread only)."""
    before = hear(handler)
    try:
        yield
    finally:
        put_back(before)


def hear(handler: Handler | signal.Handlers) -> Mapping[int, Any]:
    """Have `handler` called for each signal that asks to leave (main thread only); the handlers before it.

    A signal that the command was started to ignore (`nohup`, `&` in a script) stays ignored. A terminal that closes
    sends SIGHUP more than once, by the kernel and by the shell: only the first counts.
    """

    def once(number: int, frame: FrameType | None) -> None:
        global _has_come, _hung_up
        if number == signal.SIGHUP and _hung_up:
            return
        _has_come, _hung_up = True, _hung_up or number == signal.SIGHUP
        assert callable(handler)
        handler(number, frame)

    listening = [number for number in ASKING if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, once if callable(handler) else handler) for number in listening}


def put_back(handlers: Mapping[int, Any]) -> None:
    """Undo a `hear`."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def has_come() -> bool:
    """Whether a signal has asked to leave since the command began."""
    return _has_come


def interrupted(number: int, again: str = "the same command") -> InterruptedRunError:
    """The error that a signal ends a command by."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    return InterruptedRunError(f"interrupted ({name}); {again} goes on from where it was", number)


class StopToken:
    """What a long stage asks between two steps: go on, or leave?

    While a stage is `heeding`, the first signal is only noted, and the stage leaves after a checkpoint; a second one,
    or one that comes while no stage is heeding, ends the command at once. `again` says what goes on.
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
    def installed(self) -> Iterator["StopToken"]:
        """Take the signals over while a command runs (main thread only)."""
        with heard_by(self._arrived):
            yield self

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
            return interrupted(self._signal, self._again)
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
        raise interrupted(number, self._again)


def take_over() -> None:
    """From here on, a signal that asks to leave ends the process by an `InterruptedRunError` (main thread only)."""
    hear(_end)
    sys.unraisablehook = _not_raised


def _end(number: int, _frame: FrameType | None) -> None:
    raise interrupted(number)


def _not_raised(unraisable: "sys.UnraisableHookArgs") -> None:
    """A signal that came while Python ran a finaliser or a callback, where nothing can be raised: send it again."""
    global _hung_up
    error = unraisable.exc_value
    if isinstance(error, InterruptedRunError):
        _hung_up = False
        again = threading.Timer(0.02, os.kill, (os.getpid(), error.signal_number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
