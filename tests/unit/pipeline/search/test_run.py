"""One command's work on a search, around the trials: those are recorded here without being run."""

import pytest
from few_images import config_with
from ledgers import end, row, run_trial

from pipeline.errors import BudgetExhaustedError, ConfigError, InterruptedRunError, MachineUnfitError, MemoryCapError
from pipeline.search import run
from pipeline.search.forecaster import TrialForecaster
from pipeline.search.report import SearchReport
from pipeline.search.request import Request
from pipeline.search.run import SearchOutcome, search, survey
from pipeline.search.store import SearchFolder
from pipeline.search.trial import TrainTrial
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery import RunIdentity
from sequencer_models.cache_folder import cache_folder
from tuning.capacity import Capacity, Node
from tuning.errors import CapDoesNotFitError
from tuning.ledger import Ledger
from tuning.observer import Observer, Snapshot, best_row
from tuning.search import SearchResult

CAPACITY = Capacity(900, 1, (Node("here", 1, 2000),), (1,), 1.0)


class Trials:
    """Stands for `tuning.search`: `ends` are the ends of the trials that the next run of a search records."""

    def __init__(self):
        self.ends = [end(value=0.5), end(value=0.7)]
        self.ended = "finished"
        self.refuses = None
        self.fails = None
        self.surveyed = []
        self.settings = None
        self.extend = None
        self.no_forecast = None

    def survey(self, settings):
        self.surveyed.append(settings)
        if self.refuses:
            raise self.refuses
        return CAPACITY

    def forecast_space(self, base, space, cap_mb):
        self.forecast_asked = base, space, cap_mb
        if self.no_forecast:
            raise self.no_forecast
        return ["the forecasts"]

    def run_search(
        self,
        trial,
        space,
        default,
        folder,
        identity,
        settings,
        *,
        observer,
        warm_up,
        shared_files,
        cache_folder,
        should_stop,
        extend,
        forecast,
    ):
        self.forecast = forecast
        self.settings, self.extend, self.trial, self.cache_folder = settings, extend, trial, cache_folder
        with Ledger(folder, identity) as ledger:
            ledger.raise_target(settings.trials)
            if self.fails and not self.ends:  # refused before the first trial
                raise self.fails
            observer.ticked(Snapshot(tuple(ledger.rows), frozenset(), settings.trials, 1, 900, 0.0, 0.0, None, False))
            for finish in self.ends:
                number = len(ledger.rows)
                config = {**default, "train.learning_rate": 0.001 * (number + 1)}
                run_trial(ledger, config, finish, [0.4], [observer])
            if self.fails:
                raise self.fails
            rows = tuple(ledger.rows)
        return SearchResult(
            rows, best_row(rows, "max"), self.ended, settings.trials, capacity=CAPACITY if self.ends else None
        )


@pytest.fixture
def trials(monkeypatch):
    trials = Trials()
    monkeypatch.setattr(run.tuning_search, "survey", trials.survey)
    monkeypatch.setattr(run.tuning_search, "run_search", trials.run_search)
    monkeypatch.setattr(run.local_ray, "require_loopback", lambda: None)
    monkeypatch.setattr(run, "forecast_space", trials.forecast_space)
    monkeypatch.setattr("pipeline.search.report._draw", lambda *_: [])  # a second of drawing
    monkeypatch.setattr(TrainTrial, "shared_files", [])  # the data is a stand-in too
    return trials


@pytest.fixture
def request_for(base, space):
    return lambda **words: Request(base, space, **{"trials": 2} | words)


@pytest.fixture
def command(house, trials, request_for):
    """Runs a command; what it said of each stage is in `house.why`."""

    def command(observers=(), **words):
        house.why.clear()
        return search(request_for(**words), house.context, observers, "seqpipe", house.why.__setitem__)

    return command


def runs(house):
    """The status of every recorded MLflow run."""
    pending = delivery_state.pending(house.workspace, house.context.mlflow.address)
    return {record.name: record.status for record in pending}


def test_a_search_prepares_the_data_runs_its_trials_and_writes_the_results(command, house, trials, space):
    seen = []

    class Watching(Observer):
        def finished(self, row):
            seen.append(row.number)

    outcome = command([Watching()])
    assert house.ran == ["prepare"]
    assert house.why["search"] == "not started yet"
    assert seen == [0, 1]
    assert outcome.result.best.number == 1
    assert outcome.report.best_config == outcome.search.path / "best.yaml"
    assert outcome.report.best_config.is_file()
    assert outcome.error is None
    assert list(outcome.default) == list(space)


def test_repeated_it_has_nothing_to_do_and_asks_nothing_of_the_machine(command, house, trials):
    command()
    assert len(trials.surveyed) == 1
    trials.ends = []
    trials.refuses = CapDoesNotFitError("too large", 900)
    command()
    assert house.why == {"prepare": "up to date", "search": "up to date"}
    assert len(trials.surveyed) == 1


def test_what_the_machine_cannot_run_is_refused_before_anything_is_written(command, house, trials):
    trials.refuses = CapDoesNotFitError("too large", 900)
    with pytest.raises(MachineUnfitError, match="too large"):
        command()
    assert house.ran == []
    assert not (house.workspace.hidden / "searches").exists()


def test_an_address_is_checked_in_place_of_this_machine(command, trials, monkeypatch):
    asked = []
    monkeypatch.setattr(run.cluster, "check", asked.append)
    command(address="far:1")
    assert (asked, trials.surveyed) == (["far:1"], [])


def test_on_the_cluster_of_the_workspace_the_nodes_are_looked_at_before_anything_is_written(
    command, trials, monkeypatch
):
    monkeypatch.setattr(run.cluster, "check", lambda address: pytest.fail("it takes a process of its own"))
    command(address="here:1", token="abc")
    [settings] = trials.surveyed
    assert (settings.address, settings.token) == ("here:1", "abc")


def test_nothing_to_extend_is_refused_before_anything_is_written(command, house):
    with pytest.raises(ConfigError, match="no search with these settings to extend"):
        command(extend=1)
    assert house.ran == []


def test_a_finished_search_is_extended(command, house, trials):
    command()
    trials.ends = [end(value=0.9)]
    outcome = command(extend=1)
    assert house.why["search"] == "1 more: 2 of 2 trials, best 70.00 %"
    assert (trials.extend, len(outcome.result.rows), outcome.result.best.number) == (1, 3, 2)


def test_fresh_discards_the_search_before_with_its_first_trial_and_says_so(command, house, trials):
    folder = command().search
    key = folder.create()
    command(fresh=True)
    assert house.why["search"] == "--fresh, in place of 2 of 2 trials, best 70.00 %"
    assert f"the search {folder.fingerprint} from before is discarded" in house.context.reporter.notes
    assert folder.create() != key
    assert not list((house.workspace.hidden / "set-aside").iterdir())


def test_fresh_that_is_refused_leaves_the_search_before(command, trials):
    folder = command().search
    key = folder.create()
    trials.ends, trials.fails = [], CapDoesNotFitError("too large", 900)
    with pytest.raises(MachineUnfitError):
        command(fresh=True)
    assert folder.create() == key
    assert folder.status().finished == 2


def test_fresh_that_was_killed_before_its_first_trial_leaves_the_search_before(command, trials, house):
    folder = command().search
    key = folder.create()
    folder.set_aside()
    trials.ends = []
    command()
    assert house.why["search"] == "up to date"
    assert folder.create() == key


def test_fresh_ends_the_runs_that_a_killed_command_left_open(command, house):
    folder = command().search
    open_run = delivery_state.RunRecord(f"{folder.create()}-00007", "trial 007", lock=folder.lock_name)
    delivery_state.write_run(house.workspace, open_run)
    command(fresh=True)
    assert delivery_state.read_run(house.workspace, open_run.key).status == "KILLED"


def test_what_a_killed_command_did_not_record_is_recorded_by_the_next_with_nothing_to_run(command, trials, house):
    folder = command().search
    record = delivery_state.read_run(house.workspace, folder.create())
    record.status = "RUNNING"
    delivery_state.write_run(house.workspace, record)
    trials.ends = []
    command()
    assert delivery_state.read_run(house.workspace, record.key).status == "FINISHED"


def test_a_new_search_that_is_refused_leaves_no_folder(command, trials, house, request_for):
    trials.ends, trials.fails = [], CapDoesNotFitError("too large", 900)
    with pytest.raises(MachineUnfitError):
        command()
    assert not SearchFolder.of(house.workspace, request_for().config, request_for().space).path.exists()
    assert runs(house) == {}


def test_a_search_that_fails_keeps_its_trials_and_ends_its_runs(command, trials, house):
    trials.ends, trials.fails = [end(value=0.5), None], OSError("full")
    with pytest.raises(OSError, match="full"):
        command()
    assert runs(house) == {
        "search vanilla, 4 classes, seed 0": "FAILED", "trial 000": "FINISHED", "trial 001": "KILLED"
    }  # fmt: skip


def test_a_search_that_is_interrupted_has_killed_runs(command, trials, house):
    trials.ends, trials.fails = [None], InterruptedRunError("interrupted")
    with pytest.raises(InterruptedRunError):
        command()
    assert set(runs(house).values()) == {"KILLED"}


def test_a_search_that_was_asked_to_leave_says_why_after_its_results(command, trials, house, monkeypatch):
    trials.ends, trials.ended = [end(value=0.5), None], "asked"
    monkeypatch.setattr(house.context.stop_token, "reason", lambda: BudgetExhaustedError("time is up"))
    monkeypatch.setattr(house.context.stop_token, "raise_if_asked", lambda: None)
    monkeypatch.setattr(run, "LEAVING_PATIENCE_S", 0.1)
    outcome = command()
    assert isinstance(outcome.error, BudgetExhaustedError)
    assert outcome.report.best_config.is_file()
    assert runs(house)["search vanilla, 4 classes, seed 0"] == "KILLED"


def test_other_settings_name_the_search_before(command, house, trials, space):
    first = command().search
    other = Request(config_with("train.epochs=3"), space, trials=2)
    search(other, house.context, [], "seqpipe")
    [text] = [text for text in house.context.reporter.notes if text.startswith("this is another search than before")]
    assert first.fingerprint in text
    assert text.endswith("other settings: base.train.epochs")


def test_a_trial_trains_with_the_threads_that_it_has_cores_for(command, trials):
    command()
    assert trials.trial.base.compute.threads == trials.settings.cpus_per_trial == 1


def test_nodes_keep_shared_files_in_the_cache_folder_of_the_pipeline(command, trials):
    command()
    assert trials.cache_folder is cache_folder


def test_a_survey_shows_what_a_command_would_search_and_changes_nothing(house, trials, request_for):
    found = survey(request_for(trials=None), house.workspace)
    assert (found.target, found.status, found.capacity) == (30, None, CAPACITY)
    assert not house.workspace.hidden.exists()


def test_a_survey_forecasts_trials_under_the_cap_with_the_settings_that_trials_have(
    house, trials, request_for, space
):
    found = survey(request_for(), house.workspace)
    assert (found.forecasts, found.no_forecast) == (["the forecasts"], "")
    assert trials.forecast_asked == (request_for().base_config(), space, CAPACITY.cap_mb)


def test_a_survey_without_a_forecast_says_why_and_has_the_rest(house, trials, request_for):
    trials.no_forecast = MachineUnfitError("no answer")
    found = survey(request_for(), house.workspace)
    assert (found.forecasts, found.no_forecast, found.capacity) == ((), "no answer", CAPACITY)


def test_the_search_forecasts_with_the_settings_that_trials_have(command, trials):
    command()
    assert isinstance(trials.forecast, TrialForecaster)
    assert trials.forecast.base == trials.trial.base
    assert trials.forecast.classes == len(trials.trial.prepared.class_names)


def test_a_survey_with_fresh_is_that_of_a_new_search(command, house, trials, request_for):
    command()
    assert survey(request_for(trials=5), house.workspace).status.finished == 2
    assert survey(request_for(trials=5, fresh=True), house.workspace).status is None


def outcome_with(*ends, left=None):
    rows = tuple(row(number, {"x": number}, finish) for number, finish in enumerate(ends))
    result = SearchResult(rows, None, "finished", 2)
    return SearchOutcome(None, {}, RunIdentity("k", "n"), result, SearchReport(None, (), {}), left)


def test_a_search_in_which_every_trial_was_capped_ends_as_an_error_that_names_the_largest_cap():
    error = outcome_with(end("memory_cap", cap_mb=400.0), end("memory_cap", cap_mb=450.0), None).error
    assert isinstance(error, MemoryCapError)
    assert "every trial ran into its memory cap (450 MB)" in str(error)


@pytest.mark.parametrize("ends", [[end("memory_cap"), end(value=0.5)], [None], []])
def test_any_other_outcome_or_none_at_all_is_no_such_error(ends):
    assert outcome_with(*ends).error is None


def test_why_it_left_comes_before_the_caps():
    left = BudgetExhaustedError("time is up")
    assert outcome_with(end("memory_cap"), left=left).error is left
