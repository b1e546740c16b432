"""One command's work on a search: prepare the data, run trials, write the results, deliver them to MLflow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.data.prepared import PreparedData
from pipeline.errors import BudgetExhaustedError, InterruptedRunError, MachineUnfitError, MemoryCapError, SeqpipeError
from pipeline.search import report
from pipeline.search.forecaster import TrialForecaster
from pipeline.search.mlflow_runs import SearchMethod, SearchRuns
from pipeline.search.report import SearchReport
from pipeline.search.request import Request
from pipeline.search.space import default_of
from pipeline.search.space_forecast import TrialForecast, forecast_space
from pipeline.search.start import check_extension, closest_other, decide, will_run_trials
from pipeline.search.store import NAME, SearchFolder, SearchStatus
from pipeline.search.trial import TrainTrial, warm_up
from pipeline.search.tuning_errors import translated
from pipeline.stages import prepare
from pipeline.stages.context import Context
from pipeline.stages.runner import Runner
from pipeline.stop import StopToken
from pipeline.tracking.delivery import RunIdentity
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace
from sequencer_models.cache_folder import cache_folder
from tuning import search as tuning_search
from tuning.capacity import Capacity
from tuning.ledger import Row
from tuning.observer import Observer, Observers
from tuning.on_ray import cluster, local_ray
from tuning.search import SearchResult
from tuning.space import Config

OnStage = Callable[[str, str], None]
DELIVERY_PATIENCE_S = 60.0
LEAVING_PATIENCE_S = 1.5
"""How long to wait for MLflow; what is not delivered by then is delivered by a later command."""


@dataclass(frozen=True)
class Survey:
    """What a command would search, and where."""

    request: Request
    search: SearchFolder
    status: SearchStatus | None
    """None for a search that would start anew."""
    capacity: Capacity
    forecasts: Sequence[TrialForecast] = ()
    """Of the default, the smallest and the largest configuration; empty where there is no forecast."""
    no_forecast: str = ""
    """Why there is none."""

    @property
    def target(self) -> int:
        """How many trials the search would have."""
        return self.request.target(self.status)


@dataclass(frozen=True)
class SearchOutcome:
    """What a command left of a search."""

    search: SearchFolder
    default: Config
    """The configuration of trial 0."""
    run: RunIdentity
    result: SearchResult
    report: SearchReport
    left: SeqpipeError | InterruptedRunError | None
    """Why it left before the end, resumable."""

    @property
    def error(self) -> SeqpipeError | InterruptedRunError | None:
        """The error that the command ends with, after its results: it left early, or no trial had enough memory."""
        if self.left is not None:
            return self.left
        ends = [row.finish for row in self.result.rows if row.finish]
        if not ends or any(end.outcome != "memory_cap" for end in ends):
            return None
        most = max(end.cap_mb for end in ends)
        return MemoryCapError(
            f"every trial ran into its memory cap ({most:.0f} MB); close other programs, or give each more with "
            "--fresh --trial-memory-mb or a lower --concurrency"
        )


def survey(request: Request, workspace: Workspace) -> Survey:
    """What `search` would do; changes nothing and starts nothing.

    Raises:
        ConfigError: there is no search to extend.
        MachineUnfitError: no node can hold a trial, or the cluster does not answer.
    """
    folder = SearchFolder.of(workspace, request.config, request.space)
    check_extension(request, folder)
    status = None if request.fresh else folder.status()
    with translated(StopToken()):
        found = Survey(request, folder, status, tuning_search.survey(request.settings(status)))
    try:
        forecasts = forecast_space(request.base_config(), request.space, found.capacity.cap_mb)
    except MachineUnfitError as error:
        return replace(found, no_forecast=str(error))
    return replace(found, forecasts=forecasts)


def search(
    request: Request,
    context: Context,
    observers: Sequence[Observer],
    command: str,
    on_stage: OnStage = lambda *_: None,
) -> SearchOutcome:
    """Search, or continue the search of the same settings, until it has its trials or is asked to leave.

    `command` is what a user types for this program; `on_stage` gets each stage that starts, and why.

    Raises:
        ConfigError: there is no search to extend.
        MachineUnfitError: no node can grant the cap; the imports alone need more; the cluster does not answer.
        SeqpipeError: every trial failed; the message contains the first error.
    """
    folder = SearchFolder.of(context.workspace, request.config, request.space)
    check_extension(request, folder)
    _check_machine(request, folder)
    runner = Runner(context)
    prepared = runner.run(request.config, prepare.NAME, on_stage).results[PreparedData]
    note, raise_if_asked = context.reporter.note, context.stop_token.raise_if_asked
    with exclusive(folder.lock, note, what=f"search {folder.fingerprint}", while_waiting=raise_if_asked):
        runner.end_dead_runs([], prepare.NAME)
        folder.drop_or_restore()  # left by a `--fresh` that was killed
        _start(request, folder, context, on_stage)
        method = SearchMethod(request.searcher, request.scheduler, request.cap_mb)
        runs = SearchRuns(folder, folder.create(), request.config, request.space, method, context.tracker)
        trial = TrainTrial(request.base_config(), prepared)
        watching = Observers([_Replacement(folder, note), runs, *observers])
        result = _run_trials(request, folder, trial, runs, watching, context.stop_token)
        return _conclude(request, folder, runs, result, context, command)


def _check_machine(request: Request, folder: SearchFolder) -> None:
    """Refuse what the machine or the cluster cannot run, before anything is written."""
    if not will_run_trials(request, folder):
        return
    with translated(StopToken()):
        if request.address is not None and request.token is None:
            cluster.check(request.address)
            return
        if request.address is None:
            local_ray.require_loopback()
        tuning_search.survey(request.settings(folder.status()))


def _start(request: Request, folder: SearchFolder, context: Context, on_stage: OnStage) -> None:
    """Say how the command starts, and make room for a search that replaces another."""
    start = decide(request, folder.status(), is_there=folder.path.exists())
    on_stage(NAME, start.why)
    for text in start.notes:
        context.reporter.note(text)
    if start.kind == "new" and (other := closest_other(folder)):
        context.reporter.note(f"this is another search than before; {other}")
    if start.kind == "replace":
        context.tracker.deliver_pending()  # its journals go with it
        key = folder.create()
        context.tracker.close_open(lambda record: record.key.startswith(key))
        folder.set_aside()


def _run_trials(
    request: Request,
    folder: SearchFolder,
    trial: TrainTrial,
    runs: SearchRuns,
    observer: Observer,
    stop_token: StopToken,
) -> SearchResult:
    try:
        with translated(stop_token), stop_token.deferring():
            return tuning_search.run_search(
                trial,
                request.space,
                default_of(request.space, request.config),
                folder.path,
                folder.identity,
                request.settings(folder.status()),
                observer=observer,
                warm_up=partial(warm_up, trial.base),
                shared_files=trial.shared_files,
                cache_folder=cache_folder,
                should_stop=lambda: stop_token.reason() is not None,
                extend=request.extend,
                forecast=TrialForecaster(trial.base, len(trial.prepared.class_names)),
            )
    except BaseException as error:
        left = isinstance(error, (InterruptedRunError, BudgetExhaustedError))
        runs.abort("KILLED" if left else "FAILED", LEAVING_PATIENCE_S)
        folder.discard_if_unused()
        folder.drop_or_restore()
        raise


def _conclude(
    request: Request, folder: SearchFolder, runs: SearchRuns, result: SearchResult, context: Context, command: str
) -> SearchOutcome:
    """Write the results, and deliver what MLflow does not have."""
    left = context.stop_token.reason() if result.ended == "asked" else None
    written = report.write(folder.path, request.config, request.space, result.rows, result.best)
    default = default_of(request.space, request.config)
    outcome = SearchOutcome(folder, default, runs.identity, result, written, left)
    if result.capacity is None and runs.are_recorded:  # nothing was run, and an earlier command recorded the rest
        context.tracker.deliver_pending()
        return outcome
    text = report.description(request.config, result.rows, request.space, written.importances, command)
    if left:
        runs.end(result.rows, "KILLED", written.files, text, LEAVING_PATIENCE_S)
    else:
        runs.end(result.rows, "FINISHED", written.files, text, DELIVERY_PATIENCE_S)
        context.tracker.deliver_pending()  # of earlier commands
    return outcome


class _Replacement(Observer):
    """Drops the search that `--fresh` set aside, as soon as the new one has a trial."""

    def __init__(self, folder: SearchFolder, note: Callable[[str], None]) -> None:
        self._folder = folder
        self._note = note

    def started(self, row: Row) -> None:
        if self._folder.drop_or_restore():
            self._note(f"the search {self._folder.fingerprint} from before is discarded")
