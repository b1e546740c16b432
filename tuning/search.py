"""A search: propose, run under the cap, record, until there are enough trials.

    result = run_search(objective, space, default, folder, identity, Settings(trials=30, max_epochs=12, cap_mb=2000))

The ledger in `folder` is the search; Ray only runs it. However a run of it ends, the same call continues: unfinished
rows run first, from their checkpoints. The caller holds a lock on the folder.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuning.capacity import Capacity, Node, at_cap, capacity_of, this_machine
from tuning.capped.run_capped import CapTooLowError, floor_mb
from tuning.errors import AllTrialsFailedError
from tuning.fit import fit_of, forecasting
from tuning.forecast import Forecaster
from tuning.ledger import Ledger, Row
from tuning.observer import Ended, Observer, best_row
from tuning.on_ray import local_ray, search_cluster
from tuning.on_ray.node_watch import NodeWatch
from tuning.on_ray.shared_files import SharedFiles, temporary_folder
from tuning.settings import Settings
from tuning.space import Config, Space
from tuning.traffic import Sent
from tuning.trial import Objective, PickledObjective, run_objective, warm_up_objective
from tuning.waiting import Helper, result_of

RESUME_MARGIN = 1.1
"""A resumed trial gets at least 1.1x its peak memory so far."""
FLOOR_MARGIN_MB = 16
"""A cap closer than this to the memory of the imports alone leaves nothing to train in."""


@dataclass(frozen=True)
class SearchResult:
    """What a run of a search left: all rows, those of earlier runs included."""

    rows: tuple[Row, ...]
    best: Row | None
    ended: Ended
    target: int
    freed_bytes: int = 0
    """Size of the losing trials' checkpoints that this run deleted."""
    overhead_mb: float = 0.0
    """Peak memory of this run on this machine apart from its trials: the driver and all processes below it."""
    capacity: Capacity | None = None
    """As it was in the end; None where there was nothing left to run."""
    sent: Mapping[str, Sent] = field(default_factory=dict)
    """What this run sent over the network, by the name of the other node."""


def survey(settings: Settings) -> Capacity:
    """The capacity for a new search; starts no Ray."""
    if settings.address is None:
        return _capacity([this_machine(settings.reserve_mb)], settings)
    return _capacity(search_cluster.survey(settings.address, settings.token), settings)


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
    shared_files: Sequence[Path] = (),
    cache_folder: Callable[[], Path] = temporary_folder,
    should_stop: Callable[[], bool] = lambda: False,
    extend: int = 0,
    forecast: Forecaster | None = None,
) -> SearchResult:
    """Search, or continue the search in `folder`, until it has its trials or is asked to stop.

    Args:
        objective: what a trial runs, in a process of its own; picklable and importable.
        space: what may vary.
        default: the configuration of row 0, by the names of the space; it may lie outside of it.
        folder: where the search is kept on this machine: ledger and checkpoints.
        identity: JSON that identifies this search (model, data, ...); space, mode and epochs are added.
        settings: how to search.
        observer: called with each event, in this thread.
        warm_up: called in a trial's process before its memory is limited: imports.
        shared_files: files of one folder that every trial reads; `Trial.shared_files` is the folder to find them in,
            also on nodes that do not share this machine's disk.
        cache_folder: called on such a node, gives the folder in which it keeps them; importable.
        should_stop: asked several times a second; True ends the search in order, resumable.
        extend: more trials for a search that has all of its own.
        forecast: forecasts what a configuration will hold (`tuning.forecast`): one that no node can hold is not
            started, and a trial that hits its cap all the same goes on once with half of what it held at once.

    Raises:
        LedgerError: the folder holds another search, or a damaged one.
        CapDoesNotFitError, CapTooLowError: no node can grant the cap; the imports alone need more.
        ClusterError: no Ray could be started or joined.
        AskedToLeaveError: `should_stop` returned True before the first trial.
        AllTrialsFailedError: the first trials all failed.
    """
    began = time.monotonic()
    packed = PickledObjective.of(objective, warm_up)
    files = SharedFiles.of(shared_files, cache_folder)
    whole_identity = {**identity, "space": space.to_json(), "mode": settings.mode, "max_epochs": settings.max_epochs}
    observer = observer or Observer()
    with forecasting(forecast, observer.noted) as begin, Ledger(folder, whole_identity) as ledger:
        set_target(ledger, settings.trials, extend)
        reopen_failures(ledger)
        if (ended := end_of(ledger, space)) is not None:
            return _result(ledger, settings, ended)
        capacity: Capacity | None = None
        connection: AbstractContextManager[NodeWatch | None]
        if settings.address is None:
            node = this_machine(settings.reserve_mb)
            capacity = capacity_for(ledger, [node], settings)  # refuses before anything starts
            connection = local_ray.started(node, should_stop)
        else:
            connection = search_cluster.watched(settings.address, settings.token, should_stop)
        with Helper("floor") as helper:
            floor = helper.begin(partial(_floor_mb, packed))  # while Ray starts
            with connection as watch:
                capacity = capacity or capacity_for(ledger, watch.look() if watch else [], settings)
                _refuse_low_cap(capacity.cap_mb, result_of(floor, should_stop=should_stop))
                _record_cap(ledger, capacity, settings, observer)

                from tuning.on_ray.run import TuneRun  # Ray Tune: nothing above needs it

                fit = fit_of(forecast, capacity, observer.noted, begin)
                words = (packed, settings, capacity, files, observer, should_stop, began, fit, watch)
                run = TuneRun(ledger, space, default, *words)
                how: Ended = watch.while_head_lives(run.run) if watch else run.run()
                sent = run.sent()
        result = _result(ledger, settings, how)
        return replace(
            result,
            freed_bytes=run.decisions.freed_bytes,
            overhead_mb=run.overhead_mb,
            capacity=run.capacity,
            sent=sent,
        )


def next_target(target: int, is_done: bool, trials: int, extend: int) -> int:
    """How many trials a search with this target (0: a new one) is to have.

    A search that does not have all of its trials yet is not extended: the command may be a repeated one.
    """
    return target + extend if extend and target and is_done else max(target, trials)


def set_target(ledger: Ledger, trials: int, extend: int) -> None:
    """Raise the target of a search as far as asked."""
    ledger.raise_target(next_target(ledger.target, ledger.finished >= ledger.target, trials, extend))


def reopen_failures(ledger: Ledger) -> None:
    """Run the trials of a search again if every one of them failed: the cause may be fixed by now."""
    outcomes = {row.number: row.outcome for row in ledger.rows if row.outcome}
    if set(outcomes.values()) == {"failed"}:
        for number in outcomes:
            ledger.reopen(number)


def end_of(ledger: Ledger, space: Space) -> Ended | None:
    """How a search has ended with the rows that it has; None if there is something left to run."""
    if ledger.finished >= ledger.target:
        return "finished"
    tried = sum(row.finish is not None and not space.outside(row.config) for row in ledger.rows)
    if space.size is not None and tried >= space.size and all(row.finish for row in ledger.rows):
        return "exhausted"
    return None


def capacity_for(ledger: Ledger, nodes: Sequence[Node], settings: Settings) -> Capacity:
    """The capacity for a search that may have started before.

    The cap that was decided then stays as long as as many trials fit as then, or as would without it, so that which
    trials are capped does not depend on what else the machine does now, nor on a laptop that has joined or is gone;
    and an unfinished trial gets no less than it needed so far.

    Raises:
        CapDoesNotFitError, ClusterError: as `capacity_of`.
    """
    peak_mb = max(
        (report.peak_mb for row in ledger.rows if row.finish is None for report in row.reports), default=0.0
    )
    capacity = _capacity(nodes, settings, math.ceil(peak_mb * RESUME_MARGIN))
    if settings.cap_mb is not None or ledger.cap_mb is None or peak_mb >= ledger.cap_mb:
        return capacity
    kept = at_cap(nodes, ledger.cap_mb, settings.concurrency, settings.cpus_per_trial)
    return kept if kept.concurrency >= min(ledger.cap_trials or math.inf, capacity.concurrency) else capacity


def _capacity(nodes: Sequence[Node], settings: Settings, least_mb: int = 0) -> Capacity:
    least_mb = max(least_mb, settings.least_cap_mb)
    return capacity_of(nodes, settings.cap_mb, settings.concurrency, settings.cpus_per_trial, least_mb)


def _refuse_low_cap(cap_mb: int, floor: int) -> None:
    if cap_mb < floor + FLOOR_MARGIN_MB:
        raise CapTooLowError(floor, cap_mb)


def _record_cap(ledger: Ledger, capacity: Capacity, settings: Settings, observer: Observer) -> None:
    cap_mb = capacity.cap_mb
    if settings.cap_mb is None and ledger.cap_mb is not None and cap_mb < ledger.cap_mb:
        observer.noted(f"less memory is free than before: a trial may hold {cap_mb} MB now, not {ledger.cap_mb}")
    ledger.decide_cap(cap_mb, capacity.concurrency)


def _result(ledger: Ledger, settings: Settings, ended: Ended) -> SearchResult:
    if ended == "exhausted":
        ledger.exhaust()
    return SearchResult(tuple(ledger.rows), best_row(ledger.rows, settings.mode), ended, ledger.target)


def _floor_mb(packed: PickledObjective) -> int:
    """What a trial's imports alone hold."""
    try:
        return math.ceil(floor_mb(run_objective, packed, {}, Path(), warm_up=partial(warm_up_objective, packed)))
    except RuntimeError as error:
        kind, words = _last_exception(str(error))
        raise AllTrialsFailedError(f"no trial can start: {words}", str(error), kind) from error


def _last_exception(text: str) -> tuple[str, str]:
    """Class name and message of a traceback's last exception; of any other text, the last line."""
    found = list(re.finditer(r"^(?:\w+\.)*([A-Z]\w*): (?=\S)", text, re.MULTILINE))
    if not found:
        return "", text.strip().splitlines()[-1].strip()
    return found[-1][1], text[found[-1].end() :].strip()
