"""The decisions of a search: which row runs next, what a message means, what follows a lost process, when to leave.

No Ray here: `tuning.on_ray.run` asks for rows, passes messages on, and carries out what is decided. Everything is in
the ledger before it has consequences, so a search that is killed anywhere continues from its ledger.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping

from tuning.errors import AllTrialsFailedError
from tuning.fit import Fit
from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Finish, Ledger, Row
from tuning.losses import Losses
from tuning.observer import Ended, Observer, Snapshot, best_row
from tuning.rows_without_room import RowsWithoutRoom
from tuning.sampler import Sampler
from tuning.settings import Settings
from tuning.space import Config, Space

LOST_S = 15.0
"""How long to wait for a trial that was asked to leave, after its grace time: its node may be gone."""


class Decisions:
    """The decisions of one run of a search, over its ledger.

    Each time that a row is handed out this is a new attempt at it, which `begin_attempt` numbers, higher than every
    one before; a message counts if it is of the attempt that was handed out last, and until that is over.
    `drop_checkpoint` deletes a row's checkpoint and returns the bytes that this freed. `clock` counts seconds, from
    which the elapsed time since `began` follows. With `fit` a row that no node can hold ends before it starts, and
    one that hits its cap all the same goes on once with half of what it held at once.
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
        begin_attempt: Callable[[int], int],
        drop_checkpoint: Callable[[int], int],
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
        fit: Fit | None = None,
    ) -> None:
        self._ledger = ledger
        self._sampler = Sampler(space, settings.seed, settings.searcher, settings.mode)
        self._default = default
        self._settings = settings
        self._cap_mb = cap_mb
        self._concurrency = concurrency
        self._nodes: tuple[str, ...] = ()
        self._observer = observer
        self._begin_attempt = begin_attempt
        self._drop_checkpoint = drop_checkpoint
        self._clock = clock
        self._began = clock() if began is None else began
        self._fit = fit
        self._left_over = _open_rows(ledger)
        self._running: set[int] = set()
        self._awaits_forecast = False
        self._to_go_on: set[int] = set()
        """Rows at work that are to run again once their process has left."""
        self._started_at: dict[int, float] = {}
        self._training: set[int] = set()
        self._without_room = RowsWithoutRoom(observer.noted)
        self._attempts: dict[int, int] = {}
        """Of rows at work, the attempt that has a say."""
        self._losses = Losses()
        self._losses_of_all = 0
        self._failures: list[Row] = []
        self._has_worked = any(row.finish and row.finish.outcome != "failed" for row in ledger.rows)
        self._done_before = ledger.finished
        self._gave_up = self._is_exhausted = False
        self._ended: Ended | None = None
        self._leave_by = math.inf
        self._kept: int | None = None
        self.freed_bytes = 0
        for row in ledger.rows:
            self._drop_losers(row)

    # which row runs next

    def next_row(self) -> Row | None:
        """The row to run next: an unfinished one of an earlier run, or a new one; None when there is none now."""
        rows = self._ledger.rows
        self._awaits_forecast = False
        while self._ended is None and len(self._running) < self._concurrency:
            if not self._left_over:
                proposed = self._new_row()
                if proposed is None:
                    return None
                self._left_over.append(proposed.number)
            row = rows[self._left_over[0]]
            answer = self._fit.answer(row, rows) if self._fit else "fits"
            if answer == "ask later":
                self._awaits_forecast = True
                return None
            self._left_over.pop(0)
            if answer == "fits":
                self._attempts[row.number] = self._begin_attempt(row.number)
                self._losses.begun(row.number, self._clock())
                self._running.add(row.number)
                return row
            self._finish(row.number, answer)
        return None

    def attempt(self, number: int) -> int:
        """The number of the attempt at a row that was handed out."""
        return self._attempts[number]

    @property
    def only_awaits_forecast(self) -> bool:
        """Whether no trial is at work, and the next row has only to be forecast."""
        return self._awaits_forecast and not self._running and self._ended is None

    @property
    def memory_mb(self) -> float:
        """The memory that a trial that starts now is to plan with."""
        return self._fit.memory_mb(self._ledger.rows) if self._fit else self._cap_mb

    def _new_row(self) -> Row | None:
        rows = self._ledger.rows
        if not self._is_exhausted and len(rows) < self._ledger.target:
            if not rows:
                return self._ledger.propose(self._default, "default")
            proposed = self._sampler.propose(rows)
            if proposed is not None:
                return self._ledger.propose(*proposed)
            self._is_exhausted = True  # remembered, since Ray asks some ten times a second
        if self._is_exhausted and not self._running:
            self._ended = "exhausted"
        return None

    @property
    def has_no_more(self) -> bool:
        """Whether no further row will be run; a trial that runs may yet leave its node, and its row wait."""
        return self._ended is not None or self.is_done

    @property
    def is_done(self) -> bool:
        """Whether the search has all of its trials, and none of them runs."""
        return not self._left_over and not self._running and len(self._ledger.rows) >= self._ledger.target

    def restart_all(self) -> bool:
        """All trials were lost at once: the unfinished ones wait to run again; False if it has happened too often."""
        self._losses_of_all += 1
        if self._losses_of_all > self._settings.restarts:
            return False
        for number in list(self._running):
            self.left(number)
        self._left_over = _open_rows(self._ledger)
        self._to_go_on.clear()
        return True

    # messages of trials

    def started(self, number: int, attempt: int, node: str) -> None:
        """An attempt at a row has started training on that node."""
        if not self._is_current(number, attempt):
            return
        self._losses.started(number, node)
        self._training.add(number)
        self._started_at[number] = self._clock()
        self._without_room.started(number)
        self._observer.started(self._ledger.start(number, node))

    def fitted(self, number: int, attempt: int, forecast: Forecast) -> None:
        """A trial has said how it is fitted to its cap."""
        if self._is_current(number, attempt):
            self._observer.fitted(self._ledger.fit(number, forecast.peak_mb, forecast.fitted))

    def described(self, number: int, attempt: int, facts: Mapping[str, str]) -> None:
        """A trial has said what it computes with, in words."""
        if self._is_current(number, attempt):
            self._observer.described(self._ledger.describe(number, facts))

    def reported(self, number: int, attempt: int, report: EpochReport, *, stopped: bool = False) -> None:
        """A trial has finished an epoch; `stopped`: the scheduler stops it because of this report."""
        if not self._is_current(number, attempt):
            return
        if report not in self._ledger.rows[number].reports:
            self._observer.reported(self._ledger.report(number, report), report)
        if stopped:
            self._finish(number, self._stopped(self._ledger.rows[number]))

    def finished(self, number: int, attempt: int, finish: Finish) -> None:
        """A trial has ended."""
        if not self._is_current(number, attempt):
            return
        if finish.outcome == "memory_cap" and self._may_go_on(self._ledger.rows[number]):
            self._go_on_with_half(number, finish)
        else:
            self._finish(number, finish)

    def noted(self, number: int, text: str) -> None:
        """A trial has a message for the user."""
        self._observer.noted(f"trial {number}: {text}")

    # room that shrinks

    def waits(self, number: int, attempt: int, text: str) -> None:
        """A trial cannot start yet, since its node has no room; `text` says what for."""
        if self._is_waiting(number, attempt):
            self._without_room.waits(number, text)

    def gives_row_back(self, number: int, attempt: int) -> bool:
        """A trial that waits for room leaves its row to another node, and keeps its place; whether it had the row."""
        if not self._is_waiting(number, attempt):
            return False
        self._end_attempt(number)
        self._running.discard(number)
        self._left_over.append(number)
        return True

    def _is_waiting(self, number: int, attempt: int) -> bool:
        return self._is_current(number, attempt) and number not in self._training

    def left_node(self, number: int, attempt: int, text: str) -> None:
        """A trial has left its node, as the text says; its row waits, once its process has gone."""
        if self._is_current(number, attempt):
            self._end_attempt(number)
            self._without_room.leaves(number, text)

    # nodes that come and go

    def nodes_are(self, names: Collection[str], concurrency: int, gone: Collection[str] = ()) -> None:
        """So many trials fit on these nodes together from now on; `gone` are those that went away since."""
        self._nodes, self._concurrency = tuple(names), concurrency
        for name in gone:
            self._losses.node_gone(name, self._clock())

    def rows_on(self, node: str) -> list[int]:
        """The rows that train on that node."""
        return sorted(number for number in self._training if self._ledger.rows[number].node == node)

    # lost processes

    def lost(self, number: int, error: str) -> None:
        """A trial's process was lost; `left` follows. With its node it may be lost any number of times."""
        row = self._ledger.rows[number]
        if row.finish is not None or number in self._to_go_on or self._without_room.is_leaving(number):
            return
        had_started = number in self._training
        self._end_attempt(number)
        is_with_node = self._losses.lost(number)
        count = self._losses.count(number)
        if count <= self._settings.restarts:
            # of one that had not started nothing is lost; that its node is gone the user reads anyway
            if had_started and not is_with_node:
                self._observer.noted(f"trial {number} lost its process and is started again ({error})")
            self._left_over.append(number)
        else:
            error = f"its process was lost {count} times: {error}"
            self._finish(number, Finish("failed", node=row.node, epochs=row.last_epoch, error=error, lost=True))

    def left(self, number: int) -> None:
        """A trial no longer has a process, whether or not its row has ended."""
        self._end_attempt(number)
        self._running.discard(number)
        if number in self._to_go_on:
            self._to_go_on.remove(number)
            self._left_over.insert(0, number)
        if self._without_room.gone(number):
            self._left_over.append(number)

    def _end_attempt(self, number: int) -> None:
        """Ignore every further message of the current attempt at a row."""
        self._attempts.pop(number, None)
        self._training.discard(number)

    def _is_current(self, number: int, attempt: int) -> bool:
        """Whether to listen to a message: it comes from the attempt at an unfinished row that is at work."""
        return self._attempts.get(number) == attempt and self._ledger.rows[number].finish is None

    # when to leave

    def leave_if_due(self, asked: bool) -> bool:
        """Leave if asked to, or if the search has ended otherwise; whether trials have to leave now."""
        if self._ended is None and asked:
            self._ended = "asked"
        if self._ended is None:
            return False
        if self._leave_by == math.inf:
            self._leave_by = self._clock() + self._settings.grace_s + LOST_S
        return True

    @property
    def has_left(self) -> bool:
        """Whether the run can end now: it has to leave, and no trial is saving, or their time for that is over."""
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

    def snapshot(self, overhead_mb: float) -> Snapshot:
        """The search at this moment; `overhead_mb` is its peak memory apart from its trials."""
        return Snapshot(
            rows=tuple(self._ledger.rows),
            running=frozenset(self._running),
            target=self._ledger.target,
            concurrency=self._concurrency,
            cap_mb=self._cap_mb,
            overhead_mb=overhead_mb,
            elapsed_s=self._clock() - self._began,
            best=best_row(self._ledger.rows, self._settings.mode),
            leaving=self._ended is not None,
            waiting=self._without_room.waiting(self._running),
            nodes=self._nodes,
            done_before=self._done_before,
        )

    # how a row ends

    def _stopped(self, row: Row) -> Finish:
        pick = max if self._settings.mode == "max" else min
        peak_mb = max(report.peak_mb for report in row.reports)
        # it was being killed for that when the scheduler stopped it; one that may go on is stopped by its value
        is_over = peak_mb > self._cap_mb and not self._may_go_on(row)
        return Finish(
            "memory_cap" if is_over else "stopped",
            value=None if is_over else pick(report.value for report in row.reports),
            peak_mb=peak_mb,
            cap_mb=self._cap_mb,
            node=row.node,
            epochs=row.last_epoch,
            duration_s=round(self._clock() - self._started_at[row.number], 3),
        )

    def _may_go_on(self, row: Row) -> bool:
        """Whether a row that hits its cap goes on: its forecast was wrong, and it has not gone on before."""
        return self._fit is not None and row.halvings == 0

    def _go_on_with_half(self, number: int, finish: Finish) -> None:
        row = self._ledger.hit_cap(number, finish.peak_mb, finish.cap_mb)
        self._end_attempt(number)
        self._to_go_on.add(number)
        forecast = "" if row.forecast_mb is None else f", {row.forecast_mb:.0f} were forecast"
        self._observer.noted(
            f"trial {number} hit its cap ({finish.peak_mb:.0f} of {finish.cap_mb:.0f} MB{forecast}) and goes on from "
            "its last checkpoint with half of what it held at once"
        )

    def _finish(self, number: int, finish: Finish) -> None:
        row = self._ledger.finish(number, finish)
        self._training.discard(number)
        self._observer.finished(row)
        self._drop_losers(row)
        if finish.outcome != "failed":
            self._has_worked = True
            return
        self._failures.append(row)
        if len(self._failures) == 1:
            self._observer.noted(f"trial {number} failed: {finish.error}")
        if len(self._failures) >= self._settings.failures_to_stop and not self._has_worked and not self._works_now():
            self._gave_up, self._ended = True, "asked"

    def _works_now(self) -> bool:
        """Whether a running trial has finished more epochs than every one that failed."""
        failed_after = max(row.last_epoch for row in self._failures)
        return any(self._ledger.rows[number].last_epoch > failed_after for number in self._running)

    def _drop_losers(self, row: Row) -> None:
        """Of the rows that have ended, only the best one keeps its checkpoint."""
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
