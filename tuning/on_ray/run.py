"""One run of a search by Ray Tune.

Ray asks for configurations, starts the trials and carries their messages; `tuning.decisions` decides what follows.
Nothing of Ray's own state is kept.
"""

import gc
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from tuning.capacity import Capacity
from tuning.capped.run_capped import tree_memory_mb
from tuning.decisions import Decisions
from tuning.errors import ClusterError
from tuning.fit import Fit
from tuning.ledger import Ledger
from tuning.nodes_in_use import NodesInUse
from tuning.observer import Ended, Observer
from tuning.on_ray.asha import LedgerAsha
from tuning.on_ray.callbacks import Callback, FirstError, Searcher, Stopper, trial_name
from tuning.on_ray.node_watch import NodeWatch
from tuning.on_ray.shared_files import SharedFiles
from tuning.on_ray.store_actor import StoreActor
from tuning.on_ray.trial_task import Task, TrialSettings
from tuning.on_ray.worker import run_trial
from tuning.settings import Settings
from tuning.space import Config, Space
from tuning.summary import summary
from tuning.traffic import Sent
from tuning.trial import PickledObjective

TICK_S = 1.0
ASK_S = 0.2
MEASURE_S = 5.0
TRIALS_PER_TUNER = 200
"""After so many trials Ray Tune is started anew: it keeps each of its trials, with 60 kB and more of figures."""
CHECKPOINTS = "checkpoints"
THROWAWAY = "ray"
"""Where Ray keeps its own state, which is never restored; deleted when a run ends."""


class TuneRun:
    """Carries out a search's decisions by means of Ray Tune."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        default: Config,
        objective: PickledObjective,
        settings: Settings,
        capacity: Capacity,
        shared_files: SharedFiles,
        observer: Observer,
        should_stop: Callable[[], bool],
        began: float,
        fit: Fit | None = None,
        watch: NodeWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._objective = objective
        self._settings = settings
        self._capacity = capacity
        self._observer = observer
        self._should_stop = should_stop
        self._watch = watch
        self._in_use = NodesInUse(capacity.cap_mb, settings.concurrency, settings.cpus_per_trial)
        self.capacity = capacity
        """As it is now; nodes come and go."""
        self._errors = FirstError()
        self._ask_is_due = _Pace(ASK_S, clock)
        self._tick_is_due = _Pace(TICK_S, clock)
        self._measurement_is_due = _Pace(MEASURE_S, clock)
        self._folder = ledger.path.parent.absolute()
        drivers_node = ray.get_runtime_context().get_node_id()
        self._store = StoreActor(self._folder / CHECKPOINTS, shared_files.folder, drivers_node, should_stop, clock)
        self._trial_settings = TrialSettings(
            settings.mode,
            capacity.cap_mb,
            settings.grace_s,
            shared_files,
            drivers_node,
            settings.reserve_mb,
            in_cluster=watch is not None,
            search=self._folder.name,
            max_epochs=settings.max_epochs,
        )
        self.overhead_mb = 0.0
        """The most that this run was measured to hold on this machine beside its trials."""
        self.decisions = Decisions(
            ledger,
            space,
            default,
            settings,
            cap_mb=capacity.cap_mb,
            concurrency=capacity.concurrency,
            observer=observer,
            begin_attempt=self._store.begin_attempt,
            drop_checkpoint=self._drop_checkpoint,
            clock=clock,
            began=began,
            fit=fit,
        )
        self._use(capacity)

    def run(self) -> Ended:
        """Run trials until there are enough or the search has to leave; why it ended."""
        while True:
            try:
                self._fit()
            except tune.TuneError:
                if self._errors.error is not None:
                    raise self._errors.error from None
                raise
            except ray.exceptions.OutOfMemoryError as error:
                # the memory monitor of a cluster's node ended a trial, in a way that ends Tune too
                if not self.decisions.restart_all():
                    raise ClusterError(
                        "Ray's own memory monitor keeps ending trials; start the nodes with "
                        "RAY_memory_monitor_refresh_ms=0, or lower the cap"
                    ) from error
                self._observer.noted("Ray's own memory monitor ended a trial; the search goes on")
            else:
                if self.decisions.has_no_more:
                    return self.decisions.conclusion()

    def sent(self) -> Mapping[str, Sent]:
        """What was sent over the network so far, by node."""
        return self._store.sent() if self._watch is not None else {}

    def _fit(self) -> None:
        throwaway = self._folder / THROWAWAY
        shutil.rmtree(throwaway, ignore_errors=True)  # left by a driver that was killed
        try:
            self._tuner(str(throwaway)).fit()
        finally:
            shutil.rmtree(throwaway, ignore_errors=True)
            gc.collect()  # Tune's trials refer to each other in circles, which Python would not look for before long

    def _tuner(self, storage_path: str) -> tune.Tuner:
        resources = {"cpu": self._settings.cpus_per_trial, "memory": self._capacity.request_bytes}
        return tune.Tuner(
            tune.with_resources(self._trainable(), resources),
            tune_config=tune.TuneConfig(
                search_alg=Searcher(self.decisions, self._errors, self._tick, TRIALS_PER_TUNER),
                scheduler=self._scheduler(),
                num_samples=-1,
                reuse_actors=True,  # a new worker for each trial would take 2 s
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=storage_path,
                stop=Stopper(self.decisions),
                callbacks=[Callback(self.decisions, self._errors, self._tick)],
                failure_config=tune.FailureConfig(max_failures=0),  # the next attempt at a row is another trial
                verbose=0,
            ),
        )

    def _trainable(self) -> Callable[[dict[str, Any]], None]:
        objective, settings, store = self._objective, self._trial_settings, self._store.handle

        def trainable(config: dict[str, Any]) -> None:  # is pickled, so it must not refer to `self`
            run_trial(Task.from_ray(config), objective, settings, store)

        return trainable

    def _scheduler(self) -> Any:
        settings = self._settings
        if settings.scheduler == "none":
            return FIFOScheduler()
        return LedgerAsha(
            self._ledger.rows,
            settings.mode,
            settings.max_epochs,
            settings.grace_epochs,
            settings.reduction_factor,
        )

    def _tick(self) -> None:
        if self._watch is not None:
            self._watch.require_head()
        if self._ask_is_due() and (self.decisions.leave_if_due(self._should_stop()) or self.decisions.is_done):
            self._store.ask_to_stop()
        if self._tick_is_due():
            if self._watch is not None:
                self._follow_nodes(self._watch)
            self._observer.ticked(self.decisions.snapshot(self.overhead_mb))
        if self._measurement_is_due():
            # everything below the driver; watchdogs and trials are not, since watchdogs detach from their callers
            self.overhead_mb = max(self.overhead_mb, tree_memory_mb(os.getpid()))

    def _follow_nodes(self, watch: NodeWatch) -> None:
        nodes = watch.nodes()
        if nodes is not None and (change := self._in_use.look(nodes, self.decisions.rows_on)) is not None:
            self._use(change.capacity, change.gone)
            for line in change.lines:
                self._observer.noted(line)
        self._store.nodes_are(len(self.capacity.nodes) > 1)
        watch.say(summary(self._folder.name, self.decisions.snapshot(self.overhead_mb)))

    def _use(self, capacity: Capacity, gone: Sequence[str] = ()) -> None:
        self.capacity = capacity
        self.decisions.nodes_are([node.name for node in capacity.nodes], capacity.concurrency, gone)

    def _drop_checkpoint(self, row: int) -> int:
        freed = self._store.drop(row)
        if freed is None:
            self._observer.noted(f"the checkpoint of trial {row} is deleted by the next command")
        return freed or 0


class _Pace:
    """True when called at least `seconds` after it last was, and at the first call."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = 0.0

    def __call__(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
