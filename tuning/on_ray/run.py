"""One run of a search: Ray Tune over the ledger.

Ray asks for configurations, starts the trials and carries what they say; what follows from it is decided in
`tuning.decisions`. Nothing of Ray's own state is kept.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning.capacity import Capacity
from tuning.capped.run_capped import tree_memory_mb
from tuning.decisions import Decisions
from tuning.errors import ClusterError
from tuning.ledger import EpochReport, Finish, Ledger
from tuning.observer import Ended, Observer
from tuning.on_ray.asha import LedgerAsha
from tuning.on_ray.callbacks import EndStopper, Listener, RowSearcher, trial_name
from tuning.on_ray.checkpoint_store import Keeper
from tuning.on_ray.shared_files import Inputs
from tuning.on_ray.worker import Task, Terms, supervise
from tuning.settings import Settings
from tuning.space import Config, Space
from tuning.trial import Packed

TICK_S = 1.0
ASK_S = 0.2
WEIGH_S = 5.0
KEEPER_S = 30.0
"""For how long the keeper of the checkpoints may be silent."""
CHECKPOINTS = "checkpoints"
THROWAWAY = "ray"
"""Where Ray keeps the state that is never restored; gone when a run ends."""


class Driver:
    """Carries out a search's decisions by Ray Tune, which calls it back."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        default: Config,
        packed: Packed,
        settings: Settings,
        plan: Capacity,
        inputs: Inputs,
        observer: Observer,
        should_stop: Callable[[], bool],
        began: float,
    ) -> None:
        self._ledger = ledger
        self._packed = packed
        self._settings = settings
        self._plan = plan
        self._inputs = inputs
        self._observer = observer
        self._should_stop = should_stop
        self._broken: Exception | None = None
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
        self.decisions = Decisions(
            ledger,
            space,
            default,
            settings,
            cap_mb=plan.cap_mb,
            concurrency=plan.concurrency,
            observer=observer,
            drop_checkpoint=self._drop,
            began=began,
        )

    def run(self) -> Ended:
        """Run trials until there are enough or the search has to leave; why it ended."""
        losses = 0
        while True:
            try:
                self._fit()
                if not self.decisions.has_rows_left:
                    return self.decisions.conclusion()
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
                self.decisions.restart_all()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around everything that Ray calls back: keeps the error itself."""
        try:
            yield
        except Exception as error:
            self._broken = self._broken or error
            raise

    def hear(self, number: int, message: dict[str, Any], stopped: bool) -> None:
        """A trial said something; `stopped`: the scheduler ends it for what it said."""
        decisions, attempt = self.decisions, message["attempt"]
        match message["kind"]:
            case "started":
                decisions.started(number, attempt, message["node"])
            case "report":
                decisions.reported(number, attempt, EpochReport(**message["report"]), stopped=stopped)
            case "finished":
                decisions.finished(number, attempt, Finish(**message["finish"]))
            case "note":
                decisions.noted(number, message["text"])
            case "paused":
                pass  # the row stays open: it is what the next run begins with

    def tick(self) -> None:
        """Called by Ray Tune some ten times a second."""
        now = time.monotonic()
        if now >= self._next_ask:
            self._next_ask = now + ASK_S
            if self.decisions.leave_if_due(self._should_stop()):
                self._keeper.ask_to_stop.remote()  # again and again: a keeper that was restarted has forgotten
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._observer.ticked(self.decisions.snapshot(self.overhead_mb))
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

    def _drop(self, number: int) -> int:
        """Have a checkpoint deleted; the bytes that this freed."""
        dropped, began = self._keeper.drop.remote(number), time.monotonic()
        while not ray.wait([dropped], timeout=ASK_S)[0]:
            if time.monotonic() - began >= (TICK_S if self._should_stop() else KEEPER_S):
                self._observer.noted(f"the checkpoint of trial {number} is deleted by the next command")
                return 0
        return int(ray.get(dropped))
