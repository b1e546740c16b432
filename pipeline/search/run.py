"""One command's work on a search: prepare the data, search, keep what came of it, tell MLflow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.config.resolution import with_values
from pipeline.config.schema import RunConfig
from pipeline.errors import (
    BudgetExhaustedError,
    ConfigError,
    InterruptedRunError,
    MachineUnfitError,
    MemoryCapError,
    SeqpipeError,
    WorkspaceError,
)
from pipeline.search import report
from pipeline.search.mlflow_runs import SearchedBy, SearchRuns
from pipeline.search.report import SearchReport
from pipeline.search.space import default_of
from pipeline.search.store import NAME, SearchPlace, Standing
from pipeline.search.store import standing as standing_of
from pipeline.search.trial import TrainTrial, load
from pipeline.stages import prepare
from pipeline.stages.context import Context
from pipeline.stages.runner import Runner
from pipeline.stop import StopToken
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.delivery_state import Status
from pipeline.workspace.locks import exclusive, is_held
from tuning import search as searching
from tuning.capacity import Capacity
from tuning.capped.run_capped import CapTooLowError
from tuning.errors import (
    AllTrialsFailedError,
    AskedToLeaveError,
    CapDoesNotFitError,
    ClusterError,
    LedgerError,
    SearchError,
    SpaceError,
)
from tuning.ledger import EpochReport, Row
from tuning.observer import Observer, State
from tuning.on_ray import cluster
from tuning.search import SearchResult
from tuning.settings import Settings
from tuning.space import Space

OnStage = Callable[[str, str], None]
DEFAULT_TRIALS = 30
LEAST_TRIAL_MB = 1500
"""Rather than give each trial less, fewer run at once: a default small holds 0.8 to 1.1 GB, a medium 1.1 to 1.4."""
DELIVERY_PATIENCE_S = 60.0
LEAVING_PATIENCE_S = 1.5
"""How long to wait for MLflow; what it misses is delivered by a later command."""


@dataclass(frozen=True)
class Request:
    """What a command asks for."""

    config: RunConfig
    """Trial 0, and what the others differ from."""
    space: Space
    trials: int | None = None
    """None: as many as the search has been begun with, 30 for a new one."""
    extend: int = 0
    fresh: bool = False
    cap_mb: int | None = None
    concurrency: int | None = None
    searcher: Literal["optuna", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    address: str | None = None

    def target(self, standing: Standing | None) -> int:
        """How many trials the search is to have, where it stands so."""
        if standing is None:
            return self.trials or DEFAULT_TRIALS
        return searching.aim(standing.target, standing.finished >= standing.target, self.trials or 0, self.extend)

    def settings(self, standing: Standing | None) -> Settings:
        """How to search, where a search stands so."""
        epochs = self.config.train.epochs
        return Settings(
            trials=self.trials or (standing.target if standing else DEFAULT_TRIALS),
            max_epochs=epochs,
            mode="max",
            seed=self.config.seed,
            searcher=self.searcher,
            scheduler=self.scheduler,
            cap_mb=self.cap_mb,
            least_cap_mb=LEAST_TRIAL_MB,
            concurrency=self.concurrency,
            cpus_per_trial=float(self.config.compute.threads or 1),
            address=self.address,
            grace_epochs=max(1, epochs // 5),  # the first epochs, while the rate rises, tell little
        )


@dataclass(frozen=True)
class Outcome:
    """What a command left of a search."""

    place: SearchPlace
    run: RunIdentity
    result: SearchResult
    report: SearchReport
    left: SeqpipeError | InterruptedRunError | None
    """Why it left before the end, resumable."""

    @property
    def all_capped(self) -> MemoryCapError | None:
        """What to say of a search that came to its end without one trial that its memory was enough for."""
        ends = [row.finish for row in self.result.rows if row.finish]
        if not ends or any(end.outcome != "memory_cap" for end in ends):
            return None
        most = max(end.cap_mb for end in ends)
        return MemoryCapError(
            f"every trial ran into its memory cap ({most:.0f} MB); close other programs, or give each more with "
            "--fresh --trial-memory-mb or a lower --concurrency"
        )


def survey(request: Request, place: SearchPlace) -> Capacity:
    """How trials would lie on the nodes.

    Raises:
        ConfigError: there is no search to extend.
        MachineUnfitError: no node can hold one, or the cluster does not answer.
    """
    _check_extension(request, place)
    with translated():
        return searching.survey(request.settings(None if request.fresh else place.standing()))


def search(
    request: Request,
    context: Context,
    watchers: Sequence[Observer],
    command: str,
    on_stage: OnStage = lambda *_: None,
) -> Outcome:
    """Search, or go on with the search of the same settings, until it has its trials or is asked to leave.

    `command` is what a user types for this program; `on_stage` is told what begins, and why.

    Raises:
        ConfigError: there is no search to extend.
        MachineUnfitError: no node can grant the cap; the imports alone need more; the cluster does not answer.
        SeqpipeError: every trial failed; the first error is told.
    """
    config, space, stop_token = request.config, request.space, context.stop_token
    place = SearchPlace.of(context.workspace, config, space)
    _check_extension(request, place)
    if _has_something_to_do(request, place):
        with translated():  # before anything is written
            if request.address is None:
                cluster.require_loopback()
                searching.survey(request.settings(place.standing()))
            else:
                cluster.check(request.address)
    runner = Runner(context)
    prepared = runner.run(config, prepare.NAME, on_stage).prepared
    assert prepared is not None
    with exclusive(
        place.lock, context.reporter.note, what=f"search {place.fingerprint}", while_waiting=stop_token.raise_if_asked
    ):
        runner.end_dead_runs([], prepare.NAME)
        place.settle()  # after a command that was killed as it began anew
        _say_what_begins(request, place, context, on_stage)
        runs = SearchRuns(place, place.begin(), config, space, _by(request), context.tracker)
        settings = request.settings(place.standing())
        trial = TrainTrial(_for_trials(config, settings), prepared)
        try:
            with translated(stop_token), stop_token.deferring():
                result = searching.run_search(
                    trial,
                    space,
                    default_of(space, config),
                    place.folder,
                    place.identity,
                    settings,
                    observer=Several([_Replacing(place, context.reporter.note), runs, *watchers]),
                    warm_up=partial(load, trial.base),
                    inputs=trial.inputs,
                    should_stop=lambda: stop_token.reason() is not None,
                    extend=request.extend,
                )
        except BaseException as error:
            has_left = isinstance(error, (InterruptedRunError, BudgetExhaustedError))
            runs.give_up("KILLED" if has_left else "FAILED", LEAVING_PATIENCE_S)
            if (standing := place.standing()) is not None and not standing.proposed:
                place.discard()  # refused before anything was tried
            place.settle()
            raise
        left = stop_token.reason() if result.ended == "asked" else None
        written = report.write(place.folder, config, space, result.rows, result.best)
        if result.plan is None and runs.is_told_finished:  # nothing was run, and nothing was left to be told
            context.tracker.deliver_pending()
        else:
            about = f"**{config.model.name}**, {len(config.data.class_names)} classes, {config.train.epochs} epochs"
            text = report.note(about, result.rows, space, written.importances, command)
            status: Status = "KILLED" if left else "FINISHED"
            patience_s = LEAVING_PATIENCE_S if left else DELIVERY_PATIENCE_S
            runs.end(result.rows, status, written.files, text, patience_s)
            if not left:
                context.tracker.deliver_pending()  # of earlier commands
        return Outcome(place, runs.identity, result, written, left)


class _Replacing(Observer):
    """Lets go of the search before, as soon as the one that was begun anew has a trial."""

    def __init__(self, place: SearchPlace, say: Callable[[str], None]) -> None:
        self._place = place
        self._say = say

    def started(self, row: Row) -> None:
        """A trial runs."""
        if self._place.settle():
            self._say(f"the search {self._place.fingerprint} from before is discarded")


class Several(Observer):
    """Tells each of some observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def started(self, row: Row) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.started(row)

    def reported(self, row: Row, report: EpochReport) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.reported(row, report)

    def finished(self, row: Row) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.finished(row)

    def noted(self, text: str) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.noted(text)

    def ticked(self, state: State) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.ticked(state)


def _check_extension(request: Request, place: SearchPlace) -> None:
    if not request.extend:
        return
    if request.fresh:
        raise ConfigError("--extend adds to a search and --fresh discards it; give one of them")
    if place.standing() is None:
        near = place.nearest_other()
        other = f"; {_other(*near)}" if near else ""
        raise ConfigError(f"there is no search with these settings to extend{other}")


def _has_something_to_do(request: Request, place: SearchPlace) -> bool:
    """Whether this command will run trials, as far as can be told before it is its turn."""
    standing = place.standing()
    if is_held(place.lock):
        return False  # its holder may well do all of it; what then is left is judged when it is this command's turn
    return request.fresh or standing is None or not _is_done(request, standing)


def _is_done(request: Request, standing: Standing) -> bool:
    return standing.is_done and (standing.is_exhausted or request.target(standing) <= standing.target)


def _say_what_begins(request: Request, place: SearchPlace, context: Context, on_stage: OnStage) -> None:
    """Whether the command begins a search, goes on with one, or discards one."""
    say, standing = context.reporter.note, place.standing()
    if request.fresh and place.folder.exists():
        on_stage(NAME, f"--fresh, in place of {standing.in_words() if standing else 'a damaged one'}")
        context.tracker.deliver_pending()  # its journals go with it
        key = place.begin()
        context.tracker.close_open(lambda record: record.key.startswith(key))
        place.set_aside()
    elif standing is None:
        on_stage(NAME, "not begun yet")
        if near := place.nearest_other():
            say(f"this is another search than before; {_other(*near)}")
    else:
        if _is_done(request, standing):
            on_stage(NAME, "up to date")
        elif standing.is_done:
            on_stage(NAME, f"{request.target(standing) - standing.target} more: {standing.in_words()}")
        else:
            on_stage(NAME, f"going on: {standing.in_words()}")
            if request.extend:
                say("--extend is for a search that has all of its trials; this one goes on to them first")
        if request.trials and request.trials < standing.target:
            say(f"it aims for {standing.target} trials, which --trials {request.trials} does not lower")


def _other(folder: Path, differing: Sequence[str]) -> str:
    standing = standing_of(folder)
    known = f" ({standing.in_words()})" if standing else ""
    names = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
    return f"the one before, {folder.name}{known}, is kept in {folder}; other settings: {names}"


def _by(request: Request) -> SearchedBy:
    return SearchedBy(request.searcher, request.scheduler, request.cap_mb)


def _for_trials(config: RunConfig, settings: Settings) -> RunConfig:
    """The config that trials differ from, with the threads that Ray sets aside for one."""
    return with_values(config, {"compute.threads": int(settings.cpus_per_trial), "compute.max_time_s": None})


@contextmanager
def translated(stop_token: StopToken | None = None) -> Iterator[None]:
    """Turn what the search raises into what the command line knows; `stop_token` is what it asked."""
    try:
        yield
    except AskedToLeaveError:
        assert stop_token is not None
        stop_token.raise_if_asked()
        raise
    except SpaceError as error:
        raise ConfigError(str(error)) from error
    except (CapDoesNotFitError, ClusterError) as error:
        raise MachineUnfitError(f"{error}") from error
    except CapTooLowError as error:
        raise MachineUnfitError(
            f"a trial cannot run in {error.cap_mb:.0f} MB: its imports alone take {error.floor_mb:.0f} MB; "
            "give it more with --trial-memory-mb"
        ) from error
    except LedgerError as error:
        raise WorkspaceError(f"{error}; --fresh begins it anew") from error
    except AllTrialsFailedError as error:
        if error.details:
            error.add_note(error.details)  # which --debug shows
        raise (MachineUnfitError if error.kind == MachineUnfitError.__name__ else SeqpipeError)(str(error)) from error
    except SearchError as error:
        raise SeqpipeError(str(error)) from error
