"""A search: propose, run under the cap, write down, until there are enough trials.

    result = run_search(objective, space, default, folder, identity, Settings(trials=30, max_epochs=12, cap_mb=2000))

The ledger in `folder` is the search; Ray is the means. Whatever ends a run of it, the same call goes on: rows left
without an end are run first, from their checkpoints. The caller holds a lock on the folder.
"""

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuning import capacity
from tuning.capacity import Capacity, Node
from tuning.capped.run_capped import CapTooLowError, floor_mb
from tuning.errors import AllTrialsFailedError
from tuning.ledger import Ledger, Row
from tuning.observer import Ended, Observer, best_row
from tuning.on_ray import cluster, local_ray
from tuning.on_ray.shared_files import SharedFiles
from tuning.settings import Settings
from tuning.space import Config, Space
from tuning.trial import Objective, PickledObjective, run_objective, warm_up_objective
from tuning.waiting import Helper, result_of

ROOM_TO_GO_ON = 1.1
"""Of what a trial held so far: what it gets at least when it goes on."""
FLOOR_MARGIN_MB = 16
"""A cap this little above the floor leaves nothing to train in."""


@dataclass(frozen=True)
class SearchResult:
    """What a run of a search left: all rows, also of earlier runs."""

    rows: tuple[Row, ...]
    best: Row | None
    ended: Ended
    target: int
    freed_bytes: int
    """Checkpoints of losing trials that were deleted in this run."""
    overhead_mb: float
    """The most that this run was seen to hold on this machine beside its trials: the driver and all below it."""
    plan: Capacity | None
    """None where there was nothing left to run."""


def survey(settings: Settings) -> Capacity:
    """How trials would lie on the nodes; starts no Ray of its own."""
    if settings.address is None:
        return _plan([capacity.this_machine(settings.reserve_mb)], settings)
    with cluster.joined(settings.address):
        return _plan(cluster.nodes(), settings)


def run_search(
    objective: Objective,
    space: Space,
    default: Config,
    folder: Path,
    identity: Mapping[str, Any],
    settings: Settings,
    *,
    observer: Observer | None = None,
    warm_up: Callable[[], object] | None = None,
    inputs: Sequence[Path] = (),
    should_stop: Callable[[], bool] = lambda: False,
    extend: int = 0,
) -> SearchResult:
    """Search, or go on with the search in `folder`, until it has its trials or is asked to stop.

    Args:
        objective: what a trial runs, in a process of its own; picklable and importable.
        space: what may vary.
        default: the configuration of row 0, by the names of the space; it may lie outside of it.
        folder: the search's home on this machine: ledger and checkpoints.
        identity: JSON that tells this search from others (model, data, ...); space, mode and epochs are added.
        settings: how to search.
        observer: told of everything, in this thread.
        warm_up: called in a trial's process before its memory is limited: imports.
        inputs: files of one folder that every trial reads; `Trial.inputs` is the folder to find them in, also on
            nodes that do not share this machine's disk.
        should_stop: asked several times a second; True ends the search in order, resumable.
        extend: more trials on top of a search that has all of its own.

    Raises:
        LedgerError: the folder holds another search, or a damaged one.
        CapDoesNotFitError, CapTooLowError: no node can grant the cap; the imports alone need more.
        ClusterError: no Ray could be started or joined.
        AskedToLeaveError: `should_stop` said so before the first trial.
        AllTrialsFailedError: the first trials all failed.
    """
    began = time.monotonic()
    packed = PickledObjective.of(objective, warm_up)
    files = SharedFiles.of(inputs)
    whole_identity = {**identity, "space": space.to_json(), "mode": settings.mode, "max_epochs": settings.max_epochs}
    observer = observer or Observer()
    with Ledger(folder, whole_identity) as ledger:
        _aim(ledger, settings.trials, extend)
        if (done := _is_done(ledger)) or _is_exhausted(ledger, space):
            best = best_row(ledger.rows, settings.mode)
            ended: Ended = "finished" if done else "exhausted"
            if not done:
                ledger.exhaust()
            return SearchResult(tuple(ledger.rows), best, ended, ledger.target, 0, 0.0, None)
        connection: AbstractContextManager[None]
        if settings.address is None:
            node = capacity.this_machine(settings.reserve_mb)
            plan = _plan_again([node], settings, ledger)  # refuse before anything is started
            connection = local_ray.started(node, should_stop)
        else:
            connection = cluster.joined(settings.address, should_stop)
        with contextlib.ExitStack() as stack:
            probe = stack.enter_context(Helper("floor")).begin(partial(_floor_mb, packed))
            stack.enter_context(connection)
            if settings.address is not None:
                plan = _plan_again(cluster.nodes(), settings, ledger)
            if plan.cap_mb < (floor := result_of(probe, should_stop=should_stop)) + FLOOR_MARGIN_MB:
                raise CapTooLowError(floor, plan.cap_mb)

            if ledger.cap_mb is not None and plan.cap_mb < ledger.cap_mb and settings.cap_mb is None:
                observer.noted(
                    f"less memory is free than before: a trial may hold {plan.cap_mb} MB now, not {ledger.cap_mb}"
                )
            ledger.decide_cap(plan.cap_mb)

            from tuning.on_ray.run import TuneRun  # Ray Tune: nothing above needs it

            run = TuneRun(ledger, space, default, packed, settings, plan, files, observer, should_stop, began)
            ended = run.run()
            if ended == "exhausted":
                ledger.exhaust()
        best = best_row(ledger.rows, settings.mode)
        return SearchResult(
            tuple(ledger.rows), best, ended, ledger.target, run.decisions.freed_bytes, run.overhead_mb, plan
        )


def aim(target: int, is_done: bool, trials: int, extend: int) -> int:
    """How many trials a search with this target (0: a new one) is to have.

    One that does not have all of its own yet is not extended: it is the same command, repeated.
    """
    return target + extend if extend and target and is_done else max(target, trials)


def _aim(ledger: Ledger, trials: int, extend: int) -> None:
    ledger.raise_target(aim(ledger.target, _is_done(ledger), trials, extend))
    finished = [row for row in ledger.rows if row.finish]
    if finished and all(row.finish and row.finish.outcome == "failed" for row in finished):
        for row in finished:  # what made every trial fail may be mended by now
            ledger.reopen(row.number)


def _is_done(ledger: Ledger) -> bool:
    return sum(row.finish is not None for row in ledger.rows) >= ledger.target


def _is_exhausted(ledger: Ledger, space: Space) -> bool:
    tried = sum(row.finish is not None and not space.outside(row.config) for row in ledger.rows)
    return space.size is not None and tried >= space.size and all(row.finish for row in ledger.rows)


def _plan(nodes: list[Node], settings: Settings, least_mb: int = 0) -> Capacity:
    least_mb = max(least_mb, settings.least_cap_mb)
    return capacity.capacity_of(nodes, settings.cap_mb, settings.concurrency, settings.cpus_per_trial, least_mb)


def _plan_again(nodes: list[Node], settings: Settings, ledger: Ledger) -> Capacity:
    """The plan of a search that may have begun: who is capped shall not depend on what else the machine does now.

    A cap that was decided before stays while as many trials fit; what an unfinished trial holds is never too little.
    """
    held_mb = max(
        (report.peak_mb for row in ledger.rows if row.finish is None for report in row.reports), default=0.0
    )
    plan = _plan(nodes, settings, math.ceil(held_mb * ROOM_TO_GO_ON))
    if settings.cap_mb is None and ledger.cap_mb is not None and held_mb < ledger.cap_mb < plan.cap_mb:
        return replace(plan, cap_mb=ledger.cap_mb)
    return plan


def _floor_mb(packed: PickledObjective) -> int:
    try:
        return math.ceil(floor_mb(run_objective, packed, {}, Path(), warm_up=partial(warm_up_objective, packed)))
    except RuntimeError as error:
        kind, words = _last_exception(str(error))
        raise AllTrialsFailedError(f"no trial can start: {words}", str(error), kind) from error


def _last_exception(text: str) -> tuple[str, str]:
    """Class name and words of the last exception of a traceback, or the last line of what is none."""
    found = list(re.finditer(r"^(?:\w+\.)*([A-Z]\w*): (?=\S)", text, re.MULTILINE))
    if not found:
        return "", text.strip().splitlines()[-1].strip()
    return found[-1][1], text[found[-1].end() :].strip()
