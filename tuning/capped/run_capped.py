"""Run a function in a process of its own under a memory cap that holds.

    capped = run_capped(train, config, cap_mb=2000, time_limit_s=3600, warm_up=import_torch)
    if capped.outcome == "memory_cap":
        print(f"needs more than {capped.cap_mb:.0f} MB: held {capped.peak_mb:.0f}")

The function runs in a fresh interpreter, beside a second small process, the watchdog (`tuning.capped.watchdog`; 7 MB
of its own, not counted). It measures the function's whole process tree every 50 ms, every 5 ms near the cap, and
kills the tree when it holds more than the cap. `tuning.capped.memory_usage` says what counts: memory that the tree
alone holds, with what the interpreter and the imports take (the floor), without files that are mapped and read. On
Linux the kernel also refuses an allocation that would take one process past the cap by more than 64 MB or 10 %, so
that a burst fails at once and cleanly inside the function. That goes by what is reserved, touched or not: private
writable memory, a file mapped copy-on-write (numpy's mode "c", `torch.load(mmap=True)`) included.

Nothing outlives the caller, nor the call: whatever the function has started is ended with it, also when the
caller is SIGKILLed. Not held on to on macOS: a process that leaves both its parent and its session within one look.
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

from tuning.capped.child import ERROR
from tuning.capped.guarded import Guarded, packed_call
from tuning.capped.memory_usage import process_memory_mb, tree_memory_mb
from tuning.capped.watchdog import Verdict

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
        floor_mb: what the interpreter, the imports, `warm_up` and the arguments hold ("at least" this when it passes
            the cap by more than 1000 MB: the imports are ended there).
        cap_mb: the cap.
    """

    def __init__(self, floor_mb: float, cap_mb: float) -> None:
        super().__init__(f"the cap of {cap_mb:.0f} MB is not above the {floor_mb:.0f} MB that the imports alone hold")
        self.floor_mb = floor_mb
        self.cap_mb = cap_mb


@dataclass(frozen=True)
class Capped(Generic[T]):
    """What came of a function that ran under a cap.

    Attributes:
        outcome: `completed`: it returned. `memory_cap`: its tree passed the cap and was killed, or an allocation that
            would have passed it was refused (then `error` tells of it, and `peak_mb` is below the cap).
            `failed`: it raised, or left without returning, or could not be imported, or its value not be pickled.
            `killed`: a signal ended it that was none of the above: somebody's SIGKILL, the kernel's own killer when
            the *machine* runs out of memory (the two look the same), a crash of native code (also one that asked for
            far too much at once and did not look whether it was given it), or a stop that `should_stop` asked for
            and the function did not heed, at once by SIGTERM or at the end of the grace time by SIGKILL.
            `timed_out`: the time limit was over.
        value: what the function returned, when completed.
        error: the exception's type and message, or what else went wrong, in a line or a few.
        traceback: the child's traceback, where there was an exception.
        signal: the number of the signal that ended the child, when killed.
        stop_reason: what `should_stop` answered, if it asked for a stop; the outcome is what the function made of it.
        peak_mb: the most that the tree was seen to hold since the function started, MB (10^6 bytes).
        floor_mb: what it held when the function started; None if it did not get so far.
        cap_mb: the cap.
        duration_s: from call to return, with the start of the processes and the imports.
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
    output: Path | None = None,
) -> Capped[T]:
    """Call `function(*args)` in a child process whose process tree may hold `cap_mb` and no more.

    The child is a fresh interpreter with this one's `sys.path`, environment and working folder, and without its
    `__main__`: inside a Ray actor that is Ray's worker, which `multiprocessing` would import anew in every child
    (0.28 s and 39 MB, against 0.05 s and 7 MB). The function runs in its main thread (it may set signal handlers)
    and goes by import path, so it has to be at the top level of a module; keyword arguments go by
    `functools.partial`. The child leaves as soon as the function has returned and its output is flushed: no
    `atexit` function runs, nothing that it started is waited for.

    Args:
        function: what to run. With `on_message` it gets a `Send` as its first argument.
        args: its arguments; pickled, and held by the child, so large ones raise its floor.
        cap_mb: the cap in MB (10^6 bytes), on everything that the tree holds, the floor included.
        time_limit_s: seconds from this call, imports included, after which the tree is killed.
        warm_up: called in the child before anything is limited, for imports that the function's module does not make
            and that have to count as floor.
        on_message: called here, in the calling thread and in order, with each message that the function sends. A
            message is anything picklable, and the caller is the one to unpickle it. While `on_message` is busy the
            function's next `send`s wait, once some 200 kB are under way; the guard over memory and time does not.
        should_stop: asked here every 50 ms, between messages, until it returns a reason. Then the child
            gets a SIGTERM, which ends a function that has set no handler for it.
        grace_s: seconds that the function then has to return, before it is killed.
        output: a file that the child's stdout and stderr are appended to; they are the caller's by default.

    Raises:
        CapTooLowError: the cap is not above the floor; the function has not been called.
        ValueError: a cap or a limit that is not positive; a function or an argument that cannot be pickled.
        Exception: whatever `on_message` or `should_stop` raises, and KeyboardInterrupt; the tree is dead then.
    """
    if not cap_mb > 0 or not time_limit_s > 0 or not grace_s >= 0:
        raise ValueError(f"limits must be positive: cap {cap_mb} MB, time {time_limit_s} s, grace {grace_s} s")
    began = time.monotonic()
    call = packed_call(function, args, warm_up, on_message is not None)
    with Guarded(cap_mb, time_limit_s, grace_s, output) as guarded:
        guarded.begin(call)
        guarded.converse(on_message or _unheard, should_stop)
    verdict = guarded.verdict
    if verdict.why == "cap_too_low" and verdict.floor_mb is not None:
        raise CapTooLowError(verdict.floor_mb, cap_mb)
    outcome, value, error, traceback = _judged(verdict, guarded.last)
    return Capped(
        outcome=outcome,
        value=value,
        error=error,
        traceback=traceback,
        signal=-verdict.status if outcome == "killed" else None,
        stop_reason=guarded.stop_reason,
        peak_mb=verdict.peak_mb,
        floor_mb=verdict.floor_mb,
        cap_mb=cap_mb,
        duration_s=time.monotonic() - began,
    )


def floor_mb(
    function: Callable[..., object],
    *args: object,
    warm_up: Callable[[], object] | None = None,
    time_limit_s: float = 120.0,
) -> float:
    """What a child would hold in MB when this function starts: no cap at or below it can be run under.

    The function's module is imported, `warm_up` called, the function not.

    Raises:
        ValueError: as `run_capped`.
        RuntimeError: the child ended before it got there; the message tells why.
    """
    call = packed_call(function, args, warm_up, reports=False)
    with Guarded(math.inf, time_limit_s, 0.0, None, floor_only=True) as guarded:
        guarded.begin(call)
        guarded.converse(_unheard, None)
    if guarded.verdict.floor_mb is None:
        outcome, _, error, traceback = _judged(guarded.verdict, guarded.last)
        raise RuntimeError(f"the floor could not be measured ({outcome}): {error or ''}\n{traceback or ''}".strip())
    return guarded.verdict.floor_mb


def _judged(verdict: Verdict, last: tuple[bytes, bytes] | None) -> tuple[Outcome, Any, str | None, str | None]:
    """Outcome, value, error, traceback. Over the cap is over the cap; else what the child said last counts."""
    told = json.loads(last[1]) if last and last[0] == ERROR else None
    error, traceback = (told["error"], told["traceback"]) if told else (None, None)
    if verdict.why == "memory_cap" or (told and told["out_of_memory"] and verdict.floor_mb is not None):
        return "memory_cap", None, error, traceback
    if told:
        return "failed", None, error, traceback
    if last:
        try:
            return "completed", pickle.loads(last[1]), None, None  # noqa: S301
        except Exception as unread:
            return "failed", None, f"the value cannot be unpickled here: {type(unread).__name__}: {unread}", None
    if verdict.why == "timed_out":
        return "timed_out", None, None, None
    if verdict.status < 0:
        return "killed", None, f"ended by {_signal_name(-verdict.status)}", None
    return "failed", None, f"left with exit code {verdict.status}, without returning", None


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _unheard(message: object) -> NoReturn:
    raise AssertionError("a message from a function that was given no way to send one")
