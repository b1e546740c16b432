"""What a search does next: which row to run, what a message means, what follows a loss, when to leave.

Knows no Ray: `tuning.on_ray.run` asks for rows, tells what it hears, and carries out what is decided here. Every
figure is in the ledger before anything follows from it, so a search that is killed anywhere goes on from its ledger.
"""

import math
import time
from collections import Counter
from collections.abc import Callable

from tuning import sampler
from tuning.errors import AllTrialsFailedError
from tuning.ledger import EpochReport, Finish, Ledger, Row
from tuning.observer import Ended, Observer, State, best_row
from tuning.settings import Settings
from tuning.space import Config, Space

LOST_S = 15.0
"""For how long a trial that was to leave may be silent after its grace time: its node may be gone."""


class Decisions:
    """The decisions of one run of a search, over its ledger.

    `drop_checkpoint` deletes what is kept of a row and tells the bytes that this freed. `clock` counts seconds, and
    the time limit counts from `began`.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        default: Config,
        settings: Settings,
        *,
        cap_mb: int,
        concurrency: int,
        observer: Observer,
        drop_checkpoint: Callable[[int], int],
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._default = default
        self._settings = settings
        self._cap_mb = cap_mb
        self._concurrency = concurrency
        self._observer = observer
        self._drop_checkpoint = drop_checkpoint
        self._clock = clock
        self._began = clock() if began is None else began
        self._left_over = _open_rows(ledger)
        self._running: set[int] = set()
        self._started_at: dict[int, float] = {}
        self._training: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._least_attempts: dict[int, int] = {}
        self._losses = Counter[int]()
        self._losses_of_all = 0
        self._failures: list[Row] = []
        self._has_worked = any(row.finish and row.finish.outcome != "failed" for row in ledger.rows)
        self._gave_up = self._is_exhausted = False
        self._ended: Ended | None = None
        self._leave_by = math.inf
        self._kept: int | None = None
        self.freed_bytes = 0
        for row in ledger.rows:
            self._let_go_of_losers(row)

    # what to run

    def next_row(self) -> Row | None:
        """The row to run next: one that was left over, or a new one; None when there is none now."""
        if self._ended or len(self._running) >= self._concurrency:
            return None
        if self._left_over:
            row = self._ledger.rows[self._left_over.pop(0)]
        else:
            proposed = self._new_row()
            if proposed is None:
                return None
            row = proposed
        self._running.add(row.number)
        return row

    def _new_row(self) -> Row | None:
        rows = self._ledger.rows
        if not self._is_exhausted and len(rows) < self._ledger.target:
            if not rows:
                return self._ledger.propose(self._default, "default")
            settings = self._settings
            proposed = sampler.propose(rows, self._space, settings.seed, settings.searcher, settings.mode)
            if proposed is not None:
                return self._ledger.propose(*proposed)
            self._is_exhausted = True  # for good; Ray asks again, some ten times a second
        if self._is_exhausted and not self._running:
            self._ended = "exhausted"
        return None

    @property
    def has_no_more(self) -> bool:
        """Whether no row will be handed out any more, unless a process is lost."""
        return self._ended is not None or (not self._left_over and len(self._ledger.rows) >= self._ledger.target)

    @property
    def has_rows_left(self) -> bool:
        """Whether rows wait although nobody asks for them: a process was lost after the last one was asked for."""
        return self._ended is None and bool(self._left_over)

    def begin_anew(self) -> bool:
        """Every trial was lost at once: those without an end wait again; False if that has happened too often."""
        self._losses_of_all += 1
        if self._losses_of_all > self._settings.restarts:
            return False
        self._left_over = _open_rows(self._ledger)
        for number in list(self._running):
            self.left(number)
        return True

    # what trials say

    def started(self, number: int, attempt: int, node: str) -> None:
        """An attempt at a row trains on that node."""
        if attempt < max(self._least_attempts.get(number, 0), self._attempts.get(number, 0)):
            return
        if number not in self._running or self._ledger.rows[number].finish is not None:
            return
        self._attempts[number] = attempt
        self._training.add(number)
        self._started_at[number] = self._clock()
        self._observer.started(self._ledger.start(number, node))

    def reported(self, number: int, attempt: int, report: EpochReport, *, stopped: bool = False) -> None:
        """An epoch is done; `stopped`: the scheduler ends the trial for what it reported."""
        if not self._is_current(number, attempt):
            return
        if report not in self._ledger.rows[number].reports:
            self._observer.reported(self._ledger.report(number, report), report)
        if stopped:
            self._finish(number, self._stopped(self._ledger.rows[number]))

    def finished(self, number: int, attempt: int, finish: Finish) -> None:
        """A trial says how it ended."""
        if self._is_current(number, attempt):
            self._finish(number, finish)

    def noted(self, number: int, text: str) -> None:
        """A trial has something to say to the user."""
        self._observer.noted(f"trial {number}: {text}")

    # what becomes of processes

    def begun_again(self, number: int, error: str) -> None:
        """A trial's process was lost, and another attempt begins."""
        self._losses[number] += 1
        self._fence(number)
        self._observer.noted(f"trial {number} lost its process and is begun again ({error})")

    def lost(self, number: int, error: str) -> None:
        """A trial's process was lost, and no other attempt has begun."""
        row = self._ledger.rows[number]
        if row.finish is not None:
            return
        if self._losses[number] < self._settings.restarts:  # Ray gives up at once on a worker lost between two trials
            self.begun_again(number, error)
            self._left_over.append(number)
        else:
            error = f"its process was lost {self._losses[number] + 1} times: {error}"
            self._finish(number, Finish("failed", node=row.node, epochs=row.last_epoch, error=error, lost=True))

    def left(self, number: int) -> None:
        """A trial's process is gone, whatever the row's state."""
        self._running.discard(number)
        self._training.discard(number)

    def _fence(self, number: int) -> None:
        """From now on, what the present attempt says is too late."""
        if number in self._attempts:
            self._least_attempts[number] = self._attempts.pop(number) + 1

    def _is_current(self, number: int, attempt: int) -> bool:
        """Whether a message counts: of the newest attempt at a row that has no end."""
        return self._attempts.get(number) == attempt and self._ledger.rows[number].finish is None

    # when to leave

    def leave_if_due(self, asked: bool) -> bool:
        """Leave when asked or when the time is up; whether trials are to leave now."""
        now = self._clock()
        if self._ended is None:
            limit_s = self._settings.max_time_s
            if asked:
                self._ended = "asked"
            elif limit_s is not None and now - self._began >= limit_s:
                self._ended = "budget"
        if self._ended is None:
            return False
        if self._leave_by == math.inf:
            self._leave_by = now + self._settings.grace_s + LOST_S
        return True

    @property
    def has_left(self) -> bool:
        """Whether a run that is to end waits for nothing: no trial is saving, or the time for that is over."""
        return self._ended is not None and (not self._training or self._clock() >= self._leave_by)

    def conclusion(self) -> Ended:
        """Why the run ended.

        Raises:
            AllTrialsFailedError: no trial ever worked.
        """
        all_failed = bool(self._failures) and not self._has_worked and self._ended in (None, "exhausted")
        if self._gave_up or all_failed:
            first = self._failures[0].finish
            assert first is not None
            raise AllTrialsFailedError(f"every trial failed, the first with: {first.error}", first.details)
        return self._ended or "finished"

    def state(self, overhead_mb: float) -> State:
        """The search at this moment; `overhead_mb` is what it holds beside its trials."""
        return State(
            rows=tuple(self._ledger.rows),
            running=frozenset(self._running),
            target=self._ledger.target,
            concurrency=self._concurrency,
            cap_mb=self._cap_mb,
            overhead_mb=overhead_mb,
            elapsed_s=self._clock() - self._began,
            best=best_row(self._ledger.rows, self._settings.mode),
            leaving=self._ended is not None,
        )

    # how a row ends

    def _stopped(self, row: Row) -> Finish:
        pick = max if self._settings.mode == "max" else min
        peak_mb = max(report.peak_mb for report in row.reports)
        is_over = peak_mb > self._cap_mb  # it was being killed for that when the scheduler spoke
        return Finish(
            "memory_cap" if is_over else "stopped",
            value=None if is_over else pick(report.value for report in row.reports),
            peak_mb=peak_mb,
            cap_mb=self._cap_mb,
            node=row.node,
            epochs=row.last_epoch,
            duration_s=round(self._clock() - self._started_at[row.number], 3),
        )

    def _finish(self, number: int, finish: Finish) -> None:
        row = self._ledger.finish(number, finish)
        self._training.discard(number)
        self._observer.finished(row)
        self._let_go_of_losers(row)
        if finish.outcome != "failed":
            self._has_worked = True
            return
        self._failures.append(row)
        if len(self._failures) == 1:
            self._observer.noted(f"trial {number} failed: {finish.error}")
        if len(self._failures) >= self._settings.failures_to_stop and not self._has_worked and not self._works_now():
            self._gave_up, self._ended = True, "asked"

    def _works_now(self) -> bool:
        """Whether a running trial has come further than every one that failed."""
        failed_after = max(row.last_epoch for row in self._failures)
        return any(self._ledger.rows[number].last_epoch > failed_after for number in self._running)

    def _let_go_of_losers(self, row: Row) -> None:
        """Of the rows that have ended, the best alone keeps its checkpoint."""
        if row.finish is None:
            return
        best = best_row(self._ledger.rows, self._settings.mode)
        losers = {row.number, self._kept} - {best.number if best else None, None}
        if best is not None:
            self._kept = best.number
        for number in sorted(number for number in losers if number is not None):
            self.freed_bytes += self._drop_checkpoint(number)


def _open_rows(ledger: Ledger) -> list[int]:
    return [row.number for row in ledger.rows if row.finish is None]
