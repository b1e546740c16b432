"""Run a function in a process of its own under a hard memory cap.

    capped = run_capped(train, config, cap_mb=2000, time_limit_s=3600, warm_up=import_torch)
    if capped.outcome == "memory_cap":
        print(f"needs more than {capped.cap_mb:.0f} MB: held {capped.peak_mb:.0f}")

The function runs in a fresh interpreter, beside a second small process, the watchdog (`tuning.capped.watchdog`; 7 MB
of its own, not counted). The watchdog measures the function's whole process tree every 50 ms, every 5 ms near the
cap, and kills the tree if it holds more than the cap. `tuning.capped.memory_usage` says what counts: memory that the
tree alone holds, including what the interpreter and the imports take (the floor), without files that are mapped and
read. On Linux the kernel also refuses an allocation that would take one process past the cap by more than 64 MB or
10 %, so that a burst fails at once and cleanly inside the function. That limit is on what is reserved, touched or
not: private writable memory, including a file mapped copy-on-write (numpy's mode "c", `torch.load(mmap=True)`).

Nothing outlives the caller, nor the call: whatever the function has started is ended with it, also when the caller
is SIGKILLed. The exception, on macOS: a process that leaves both its parent and its session between two ticks.
"""

import contextlib
import json
import math
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar

from tuning.capped.caller import CappedCall, pickled_call
from tuning.capped.frames import ERROR
from tuning.capped.memory_usage import process_memory_mb, tree_memory_mb
from tuning.capped.watchdog import Ending

__all__ = [
    "CapTooLowError",
    "Capped",
    "Outcome",
    "Send",
    "floor_mb",
    "process_memory_mb",
    "run_capped",
    "tree_memory_mb",
]

T = TypeVar("T")
Outcome = Literal["completed", "memory_cap", "failed", "killed", "timed_out"]
Send = Callable[[object], None]


class CapTooLowError(ValueError):
    """The cap is not above what the child holds before the function starts.

    Attributes:
        floor_mb: what the interpreter, the imports, `warm_up` and the arguments hold; a lower bound if it is more
            than 1000 MB above the cap, where imports are ended.
        cap_mb: the cap.
    """

    def __init__(self, floor_mb: float, cap_mb: float) -> None:
        super().__init__(f"the cap of {cap_mb:.0f} MB is not above the {floor_mb:.0f} MB that the imports alone hold")
        self.floor_mb = floor_mb
        self.cap_mb = cap_mb


@dataclass(frozen=True)
class Capped(Generic[T]):
    """The result of a function that ran under a cap.

    Attributes:
        outcome: `completed`: it returned.
            `memory_cap`: its tree passed the cap and was killed, or an allocation that would have passed it was
            refused (then `error` describes it, and `peak_mb` is below the cap).
            `failed`: it raised, exited without returning, could not be imported, or its value could not be pickled.
            `killed`: another signal ended it: somebody's SIGKILL, the kernel's out-of-memory killer when the
            *machine* runs out (the two look the same), a crash of native code (also after a refused allocation that
            it did not check for), or a stop that `should_stop` asked for and the function did not obey, by SIGTERM
            at once or by SIGKILL at the end of the grace time.
            `timed_out`: the time limit was over.
        value: what the function returned, if completed.
        error: the exception's type and message, or what else went wrong, in a line or a few.
        traceback: the child's traceback, if there was an exception.
        signal: the number of the signal that ended the child, if killed.
        stop_reason: what `should_stop` returned, if it asked for a stop; the outcome is how the function responded.
            Or why the tree was killed by what `on_start` got.
        peak_mb: the most that the tree was measured to hold since the function started, MB (10^6 bytes).
        floor_mb: what it held when the function started; None if it never did.
        cap_mb: the cap.
        duration_s: from call to return, including the start of the processes and the imports.
    """

    outcome: Outcome
    value: T | None
    error: str | None
    traceback: str | None
    signal: int | None
    stop_reason: str | None
    peak_mb: float
    floor_mb: float | None
    cap_mb: float
    duration_s: float


def run_capped(
    function: Callable[..., T],
    *args: object,
    cap_mb: float,
    time_limit_s: float = math.inf,
    warm_up: Callable[[], object] | None = None,
    on_message: Callable[[object], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
    grace_s: float = 30.0,
    on_start: Callable[[Callable[[str], None]], object] | None = None,
    output: Path | None = None,
) -> Capped[T]:
    """Call `function(*args)` in a child process whose process tree may hold `cap_mb` and no more.

    The child is a fresh interpreter with this one's `sys.path`, environment and working folder, but without its
    `__main__`: inside a Ray actor that is Ray's worker, which `multiprocessing` would import again in every child
    (0.28 s and 39 MB, against 0.05 s and 7 MB). The function runs in its main thread (it may set signal handlers).
    It is sent by its import path, so it has to be at the top level of a module; pass keyword arguments by
    `functools.partial`. The child exits as soon as the function has returned and its output is flushed: no `atexit`
    function runs, and nothing that it started is waited for.

    Args:
        function: what to run. With `on_message` it gets a `Send` as its first argument.
        args: its arguments; pickled, and held by the child, so large ones raise its floor.
        cap_mb: the cap in MB (10^6 bytes), on everything that the tree holds, the floor included.
        time_limit_s: seconds from this call, imports included, after which the tree is killed.
        warm_up: called in the child before anything is limited, for imports that the function's module does not make
            and that have to count as floor.
        on_message: called here, in the calling thread and in order, with each message that the function sends.
            Anything picklable can be sent; the caller has to be able to unpickle it. While `on_message` is busy, the
            function's next `send`s block once some 200 kB are under way; the watchdog does not.
        should_stop: asked here every 50 ms, between messages, until it returns a reason. Then the child gets a
            SIGTERM, which ends a function that has set no handler for it.
        grace_s: seconds that the function then has to return, before it is killed.
        on_start: called here once, with a function that ends the whole tree at once. Any thread may call that, with
            the reason, which becomes `stop_reason`; after the call it does nothing.
        output: a file that the child's stdout and stderr are appended to; by default they are the caller's.

    Raises:
        CapTooLowError: the cap is not above the floor; the function has not been called.
        ValueError: a cap or a limit that is not positive; a function or an argument that cannot be pickled.
        Exception: whatever `on_message` or `should_stop` raises, and KeyboardInterrupt; the tree is dead then.
    """
    if not cap_mb > 0 or not time_limit_s > 0 or not grace_s >= 0:
        raise ValueError(f"limits must be positive: cap {cap_mb} MB, time {time_limit_s} s, grace {grace_s} s")
    started = time.monotonic()
    pickled = pickled_call(function, args, warm_up, sends=on_message is not None)
    with CappedCall(cap_mb, time_limit_s, grace_s, output) as call:
        if on_start is not None:
            on_start(call.kill)
        call.send(pickled)
        call.listen(on_message or _unexpected, should_stop)
    ending = call.ending
    if ending.reason == "cap_too_low" and ending.floor_mb is not None:
        raise CapTooLowError(ending.floor_mb, cap_mb)
    outcome, value, error, traceback = _judge(ending, call.last_frame)
    return Capped(
        outcome=outcome,
        value=value,
        error=error,
        traceback=traceback,
        signal=-ending.status if outcome == "killed" else None,
        stop_reason=call.stop_reason,
        peak_mb=ending.peak_mb,
        floor_mb=ending.floor_mb,
        cap_mb=cap_mb,
        duration_s=time.monotonic() - started,
    )


def floor_mb(
    function: Callable[..., object],
    *args: object,
    warm_up: Callable[[], object] | None = None,
    time_limit_s: float = 120.0,
) -> float:
    """What a child would hold in MB when this function starts; a cap has to be above it.

    The function's module is imported and `warm_up` called; the function is not.

    Raises:
        ValueError: as `run_capped`.
        RuntimeError: the child ended before that; the message says why.
    """
    pickled = pickled_call(function, args, warm_up, sends=False)
    with CappedCall(math.inf, time_limit_s, 0.0, None, floor_only=True) as call:
        call.send(pickled)
        call.listen(_unexpected, None)
    if call.ending.floor_mb is None:
        outcome, _, error, traceback = _judge(call.ending, call.last_frame)
        raise RuntimeError(f"the floor could not be measured ({outcome}): {error or ''}\n{traceback or ''}".strip())
    return call.ending.floor_mb


def _judge(ending: Ending, last_frame: tuple[bytes, bytes] | None) -> tuple[Outcome, Any, str | None, str | None]:
    """Outcome, value, error, traceback. Past the cap is `memory_cap`; otherwise the child's last frame decides."""
    raised = json.loads(last_frame[1]) if last_frame and last_frame[0] == ERROR else None
    error, traceback = (raised["error"], raised["traceback"]) if raised else (None, None)
    if ending.reason == "memory_cap" or (raised and raised["out_of_memory"] and ending.floor_mb is not None):
        return "memory_cap", None, error, traceback
    if raised:
        return "failed", None, error, traceback
    if last_frame:
        try:
            return "completed", pickle.loads(last_frame[1]), None, None  # noqa: S301
        except Exception as unreadable:
            text = f"the value cannot be unpickled here: {type(unreadable).__name__}: {unreadable}"
            return "failed", None, text, None
    if ending.reason == "timed_out":
        return "timed_out", None, None, None
    if ending.status < 0:
        return "killed", None, f"ended by {_signal_name(-ending.status)}", None
    return "failed", None, f"left with exit code {ending.status}, without returning", None


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _unexpected(message: object) -> NoReturn:
    raise AssertionError("a message from a function that was given no `Send`")
