"""The room of one trial on its machine: whether it may start, what it is promised, and when it has to leave."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from tuning.memory_pressure import MemoryReader, MemoryReading
from tuning.promises import Promise, Promises, shared_folder
from tuning.room import SHORT_S, Shortage, Shortfall, Verdict, reserve_mb, shortfall


class TrialRoom:
    """Leaving the context gives the room back, for good: a thread that still checks it promises nothing anew."""

    def __init__(
        self,
        cap_mb: float,
        reserve: float | None = None,
        *,
        read: Callable[[], MemoryReading] | None = None,
        promises: Promises | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read or MemoryReader()
        self._clock = clock
        total_mb = self._read().total_mb
        self._promises = promises or Promises(shared_folder(total_mb))
        self._reserve_mb = reserve_mb(total_mb, reserve)
        self._own = Promise(clock(), cap_mb)
        self._shortage = Shortage(self._reserve_mb)
        self._last_short = float("-inf")
        self.free_mb = 0.0
        """The machine's available memory when it was short last."""
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._is_over = True
            self._promises.withdraw()

    @property
    def cap_mb(self) -> float:
        """The cap of the trial."""
        return self._own.cap_mb

    @property
    def was_short(self) -> bool:
        """Whether memory is short, or was a moment ago: the kernel may have killed the trial for it."""
        return self._clock() - self._last_short <= SHORT_S

    def take(self) -> Shortfall | None:
        """Promise the trial its cap; None if that was possible, else what is missing."""
        reading = self._read()
        with self._others() as others:
            missing = shortfall(self._own.cap_mb, self._reserve_mb, reading, others)
            if missing is None:
                self._write(replace(self._own, started_at=self._clock()))
        return missing

    def check(self, held_mb: float) -> Verdict:
        """What the running trial has to do now; call it several times a second. `held_mb` is what it holds."""
        reading = self._read()
        with self._others() as others:
            now = self._clock()
            verdict = self._shortage.decide(self._own, others, reading, now)
            own = replace(self._own, held_mb=held_mb)
            if verdict != "stay" and own.leaving_since is None:
                own = replace(own, leaving_since=now)
            if own != self._own:
                self._write(own)
        if self._shortage.is_on:
            self._last_short, self.free_mb = now, reading.available_mb
        return verdict

    @contextmanager
    def _others(self) -> Iterator[list[Promise]]:
        """The promises of other trials, locked; none are known where their folder cannot be used."""
        with self._lock, contextlib.ExitStack() as stack:
            others = []
            with contextlib.suppress(OSError):
                stack.enter_context(self._promises.locked())
                others = self._promises.others()
            yield others

    def _write(self, promise: Promise) -> None:
        self._own = promise
        if not self._is_over:
            with contextlib.suppress(OSError):  # a full disk: the others do not know of it
                self._promises.write(promise)
