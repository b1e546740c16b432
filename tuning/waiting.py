"""Calls that may hang: waited for up to a time limit, and no longer than the caller wants to go on.

A library that hangs outside Python (Ray, if it cannot reach itself) reacts to no signal and has no time limit. So a
helper thread makes the call while this thread waits. A call that was given up cannot be ended: a process with one in
it has to exit by `os._exit`, since the interpreter's normal exit may wait for the call, or crash.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from tuning.errors import AskedToLeaveError

T = TypeVar("T")
ASK_S = 0.05
_given_up: list[Future[Any]] = []


class Helper:
    """A thread that makes one call after another, until the context is left.

    It has to live that long: on Linux a process may be bound to the thread that started it, as Ray's servers are.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(None)

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Start a call; returns at once."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            future, call = task
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def result_of(future: Future[T], limit_s: float = math.inf, should_stop: Callable[[], bool] = lambda: False) -> T:
    """Wait for a call, and return or raise what it does.

    Raises:
        TimeoutError: it took too long.
        AskedToLeaveError: `should_stop` returned True first.
    """
    until = time.monotonic() + limit_s
    try:
        while not wait([future], ASK_S).done:
            if should_stop():
                raise AskedToLeaveError
            if time.monotonic() >= until:
                raise TimeoutError(f"no answer within {limit_s:g} s")
    finally:  # also if a signal handler raises
        give_up(future)
    return future.result()


def give_up(future: Future[Any]) -> None:
    """Wait for a call no longer."""
    if not future.done():
        _given_up.append(future)


def is_anything_stuck() -> bool:
    """Whether a call that was given up is still running."""
    return not all(future.done() for future in _given_up)
