"""Orderly stops: a signal or `--max-time` stops a stage after a checkpoint."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from pipeline.errors import BudgetExhaustedError, InterruptedRunError, SeqpipeError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that was closed."""
Handler = Callable[[int, FrameType | None], object]
_received = _hung_up = False
_interruption: InterruptedRunError | None = None


@contextmanager
def listening(handler: Handler) -> Iterator[None]:
    """Within this, `handler` is called for each stop signal (main thread only)."""
    before = listen(handler)
    try:
        yield
    finally:
        restore(before)


def listen(handler: Handler | signal.Handlers) -> Mapping[int, Any]:
    """Have `handler` called for each stop signal (main thread only); returns the handlers before it.

    A signal that the command was started to ignore (`nohup`, `&` in a script) stays ignored. When a terminal closes,
    both the kernel and the shell send SIGHUP: only the first counts.
    """

    def once(number: int, frame: FrameType | None) -> None:
        global _received, _hung_up
        if number == signal.SIGHUP and _hung_up:
            return
        _received, _hung_up = True, _hung_up or number == signal.SIGHUP
        assert callable(handler)
        handler(number, frame)

    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, once if callable(handler) else handler) for number in handled}


def restore(handlers: Mapping[int, Any]) -> None:
    """Put the handlers back that `listen` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def signal_received() -> bool:
    """Whether a stop signal has arrived since the command started."""
    return _received


def interrupted(number: int, again: str = "the same command") -> InterruptedRunError:
    """The error by which a signal ends a command."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    return InterruptedRunError(f"interrupted ({name}); {again} resumes from where it was", number)


def interruption() -> InterruptedRunError | None:
    """The error that a signal has raised in this process.

    It should have ended the command, but native code may turn it into an ImportError while a module is imported, and
    a library may then continue without the module.
    """
    return _interruption


class StopToken:
    """Whether to stop: a long stage asks between two steps.

    While a stage is `deferring`, the first signal is only noted, and the stage stops after a checkpoint. A
    second signal, or one that comes while no stage is deferring, ends the command at once. `again` names the command
    that resumes the work. `max_time_s` counts from `started`, on the monotonic clock; by default from now.
    """

    def __init__(
        self, max_time_s: float | None = None, again: str = "the same command", started: float | None = None
    ) -> None:
        self._again = again
        started = time.monotonic() if started is None else started
        self._deadline = None if max_time_s is None else started + max_time_s
        self._max_time_s = max_time_s
        self._signal: int | None = None
        self._deferring = False

    @contextmanager
    def installed(self) -> Iterator["StopToken"]:
        """Handle the stop signals while a command runs (main thread only)."""
        with listening(self._arrived):
            yield self

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Within this, a first signal waits until the stage asks for the `reason`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def reason(self) -> SeqpipeError | InterruptedRunError | None:
        """Why to stop, as the error that ends the command; None to continue."""
        if self._signal is not None:
            return interrupted(self._signal, self._again)
        if _interruption is not None:
            return _interruption
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return BudgetExhaustedError(
                f"--max-time of {self._max_time_s:g} s is used up; {self._again} resumes from the checkpoint"
            )
        return None

    def raise_if_asked(self) -> None:
        """Raise the reason to stop, if there is one."""
        if (reason := self.reason()) is not None:
            raise reason

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._deferring and self._signal is None:
            self._signal = number
            return
        _raise(number, self._again)


def install() -> None:
    """From here on, a stop signal ends the process by an `InterruptedRunError` (main thread only)."""
    listen(_raise_interrupted)
    sys.unraisablehook = _send_again


def _raise_interrupted(number: int, _frame: FrameType | None) -> None:
    _raise(number)


def _raise(number: int, again: str = "the same command") -> NoReturn:
    global _interruption
    _interruption = interrupted(number, again)
    raise _interruption


def _send_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal again that arrived inside a finaliser or a callback, where Python cannot raise."""
    global _hung_up
    error = unraisable.exc_value
    if isinstance(error, InterruptedRunError):
        _hung_up = False
        again = threading.Timer(0.02, os.kill, (os.getpid(), error.signal_number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
