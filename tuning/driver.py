"""One run of a search: Ray Tune over the ledger.

Ray asks for configurations, starts the trials and carries what they say; every decision and every figure is
written to the ledger first. Nothing of Ray's own state is kept.
"""

import contextlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning import sampler
from tuning.asha import LedgerAsha
from tuning.checkpoints import Keeper
from tuning.cluster import Plan
from tuning.errors import AllTrialsFailedError, ClusterError
from tuning.hooks import EndStopper, Listener, RowSearcher, trial_name
from tuning.inputs import Inputs
from tuning.ledger import Finish, Ledger, Report, Row
from tuning.memory import tree_memory_mb
from tuning.space import Config, Space
from tuning.supervisor import Task, Terms, supervise
from tuning.trial import Packed
from tuning.watch import Ended, Observer, State, best_row

if TYPE_CHECKING:
    from tuning.search import Settings

TICK_S = 1.0
ASK_S = 0.2
WEIGH_S = 5.0
LOST_S = 15.0
"""For how long a trial that was to leave may be silent after its grace time: its node may be gone."""
KEEPER_S = 30.0
"""For how long the keeper of the checkpoints may be silent."""
CHECKPOINTS = "checkpoints"
THROWAWAY = "ray"
"""Where Ray keeps the state that is never restored; gone when a run ends."""


class Driver:
    """The state of one run of a search, and what Ray Tune calls back."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        default: Config,
        packed: Packed,
        settings: "Settings",
        plan: Plan,
        inputs: Inputs,
        observer: Observer,
        should_stop: Callable[[], bool],
        began: float,
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._default = default
        self._packed = packed
        self._settings = settings
        self._plan = plan
        self._inputs = inputs
        self._observer = observer
        self._should_stop = should_stop
        self._began = began
        self._left_over = [row.number for row in ledger.rows if row.finish is None]
        self._running: set[int] = set()
        self._started_at: dict[int, float] = {}
        self._training: set[int] = set()
        self._ended: Ended | None = None
        self._leave_by = math.inf
        self._failures: list[Row] = []
        self._losses = Counter[int]()
        self._has_worked = any(row.finish and row.finish.outcome != "failed" for row in ledger.rows)
        self._gave_up = self._is_exhausted = False
        self._broken: Exception | None = None
        self._kept: int | None = None
        self.freed_bytes = 0
        self._next_tick = self._next_ask = self._next_weighing = 0.0
        self.overhead_mb = 0.0
        self._folder = ledger.path.parent.absolute()
        self._home = ray.get_runtime_context().get_node_id()
        self._keeper = (
            ray.remote(Keeper)
            .options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                # beside the driver, for it writes to the driver's disk
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._home, soft=False),
            )
            .remote(str(self._folder / CHECKPOINTS), str(inputs.folder))
        )

    def run(self) -> Ended:
        """Run trials until there are enough or the search has to leave; why it ended."""
        for row in self._ledger.rows:
            self._let_go_of_losers(row)
        losses = 0
        while True:
            try:
                self._fit()
                if self._ended is not None or not self._left_over:
                    break  # else a process was lost when Ray had been told that there is nothing left to begin
            except tune.TuneError:
                if self._broken is not None:
                    raise self._broken from None  # Ray has made text of it
                raise
            except ray.exceptions.OutOfMemoryError as error:
                # the monitor of a cluster's node ends a trial in a way that ends Tune too
                losses += 1
                if losses > self._settings.restarts:
                    raise ClusterError(
                        "Ray's own memory monitor keeps ending trials; start the nodes with "
                        "RAY_memory_monitor_refresh_ms=0, or lower the cap"
                    ) from error
                self._observer.noted("Ray's own memory monitor ended a trial; the search goes on")
                self._left_over = [row.number for row in self._ledger.rows if row.finish is None]
                self._running.clear()
                self._training.clear()
        all_failed = bool(self._failures) and not self._has_worked and self._ended in (None, "exhausted")
        if self._gave_up or all_failed:
            first = self._failures[0].finish
            assert first is not None
            raise AllTrialsFailedError(f"every trial failed, the first with: {first.error}", first.details)
        return self._ended or "finished"

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around everything that Ray calls back: keeps the error itself."""
        try:
            yield
        except Exception as error:
            self._broken = self._broken or error
            raise

    def next_row(self) -> Row | None:
        """The row to run next: one that was left over, or a new one; None when there is none to be had now."""
        if self._ended or len(self._running) >= self._plan.concurrency:
            return None
        if self._left_over:
            row = self._ledger.rows[self._left_over.pop(0)]
        elif self._is_exhausted or len(self._ledger.rows) >= self._ledger.target:
            if self._is_exhausted and not self._running:
                self._ended = "exhausted"
            return None
        elif not self._ledger.rows:
            row = self._ledger.propose(self._default, "default")
        else:
            proposed = sampler.propose(
                self._ledger.rows, self._space, self._settings.seed, self._settings.searcher, self._settings.mode
            )
            if proposed is None:
                self._is_exhausted = True  # for good; Ray asks again, some ten times a second
                return self.next_row()
            row = self._ledger.propose(*proposed)
        self._running.add(row.number)
        return row

    @property
    def has_no_more(self) -> bool:
        """Whether no row will be handed out any more."""
        return self._ended is not None or (not self._left_over and len(self._ledger.rows) >= self._ledger.target)

    def hear(self, number: int, message: dict[str, Any], stopped: bool) -> None:
        """A trial said something; `stopped`: the scheduler ends it for what it said."""
        match message["kind"]:
            case "started":
                self._training.add(number)
                self._started_at[number] = time.monotonic()
                self._observer.started(self._ledger.start(number, message["node"]))
            case "report":
                report = Report(**message["report"])
                if report not in self._ledger.rows[number].reports:
                    self._observer.reported(self._ledger.report(number, report), report)
                if stopped:
                    self._finish(number, self._stopped(self._ledger.rows[number]))
            case "finished":
                self._finish(number, Finish(**message["finish"]))
            case "note":
                self._observer.noted(f"trial {number}: {message['text']}")
            case "paused":
                pass  # the row stays open: it is what the next run begins with

    def begun_again(self, number: int, error: str) -> None:
        """A trial's process was lost; Ray begins it again."""
        self._losses[number] += 1
        self._observer.noted(f"trial {number} lost its process and is begun again ({error})")

    def lost(self, number: int, error: str) -> None:
        """Ray will not begin a trial again whose process was lost."""
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

    @property
    def has_left(self) -> bool:
        """Whether a run that is to end waits for nothing: no trial is saving, or the time for that is over."""
        return self._ended is not None and (not self._training or time.monotonic() >= self._leave_by)

    def tick(self) -> None:
        """Called by Ray Tune some ten times a second."""
        now = time.monotonic()
        if now >= self._next_ask:
            self._next_ask = now + ASK_S
            self._leave_if_asked(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._observer.ticked(self._state(now))
        if now >= self._next_weighing:
            self._next_weighing = now + WEIGH_S
            # everything below the driver: the guards of the trials, and the trials, are no descendants of anyone's
            self.overhead_mb = max(self.overhead_mb, tree_memory_mb(os.getpid()))

    def _fit(self) -> None:
        settings = self._settings
        if settings.scheduler == "asha":
            scheduler = LedgerAsha(
                self._ledger.rows,
                settings.mode,
                settings.max_epochs,
                settings.grace_epochs,
                settings.reduction_factor,
            )
        else:
            scheduler = FIFOScheduler()
        packed, keeper = self._packed, self._keeper
        terms = Terms(settings.mode, self._plan.cap_mb, settings.grace_s, self._inputs, self._home)

        def trainable(config: dict[str, Any]) -> None:
            supervise(Task(**json.loads(config["task"])), packed, terms, keeper)

        resources = {"cpu": settings.cpus_per_trial, "memory": self._plan.request_bytes}
        throwaway = self._folder / THROWAWAY
        shutil.rmtree(throwaway, ignore_errors=True)  # of a driver that was killed
        try:
            tune.Tuner(
                tune.with_resources(trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=RowSearcher(self),
                    scheduler=scheduler,
                    num_samples=-1,
                    reuse_actors=True,  # a new worker for each trial would take 2 s
                    trial_name_creator=trial_name,
                    trial_dirname_creator=trial_name,
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=str(throwaway),
                    stop=EndStopper(self),
                    callbacks=[Listener(self)],
                    failure_config=tune.FailureConfig(max_failures=settings.restarts),
                    verbose=0,
                ),
            ).fit()
        finally:
            shutil.rmtree(throwaway, ignore_errors=True)

    def _leave_if_asked(self, now: float) -> None:
        if self._ended is None:
            limit_s = self._settings.max_time_s
            if self._should_stop():
                self._ended = "asked"
            elif limit_s is not None and now - self._began >= limit_s:
                self._ended = "budget"
        if self._ended is not None and self._leave_by == math.inf:
            self._leave_by = now + self._settings.grace_s + LOST_S
        if self._ended is not None:
            self._keeper.ask_to_stop.remote()  # again and again: a keeper that was restarted has forgotten

    def _state(self, now: float) -> State:
        return State(
            rows=tuple(self._ledger.rows),
            running=frozenset(self._running),
            target=self._ledger.target,
            concurrency=self._plan.concurrency,
            cap_mb=self._plan.cap_mb,
            overhead_mb=self.overhead_mb,
            elapsed_s=now - self._began,
            best=best_row(self._ledger.rows, self._settings.mode),
            leaving=self._ended is not None,
        )

    def _stopped(self, row: Row) -> Finish:
        pick = max if self._settings.mode == "max" else min
        peak_mb = max(report.peak_mb for report in row.reports)
        is_over = peak_mb > self._plan.cap_mb  # it was being killed for that when the scheduler spoke
        return Finish(
            "memory_cap" if is_over else "stopped",
            value=None if is_over else pick(report.value for report in row.reports),
            peak_mb=peak_mb,
            cap_mb=self._plan.cap_mb,
            node=row.node,
            epochs=row.last_epoch,
            duration_s=round(time.monotonic() - self._started_at[row.number], 3),
        )

    def _finish(self, number: int, finish: Finish) -> None:
        row = self._ledger.finish(number, finish)
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
        kept = best.number if best else None
        losers = {number for number in (row.number, self._kept) if number not in (None, kept)}
        if best is not None:
            self._kept = best.number
        for number in losers:
            self.freed_bytes += self._drop(number)

    def _drop(self, number: int) -> int:
        """Have a checkpoint deleted; the bytes that this freed."""
        dropped, began = self._keeper.drop.remote(number), time.monotonic()
        while not ray.wait([dropped], timeout=ASK_S)[0]:
            if time.monotonic() - began >= (TICK_S if self._should_stop() else KEEPER_S):
                self._observer.noted(f"the checkpoint of trial {number} is deleted by the next command")
                return 0
        return int(ray.get(dropped))
