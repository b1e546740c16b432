import math

import pytest

from tuning.forecast import Forecast
from tuning.ledger import EpochReport
from tuning.trial import (
    WORK,
    CheckpointReady,
    Diverged,
    Fitted,
    Paused,
    PickledObjective,
    Reported,
    Trial,
    read_reports,
    run_objective,
    warm_up_objective,
)


class Supervisor:
    def __init__(self, scratch, *plan):
        self.heard = []
        self.stop = False
        self.trial = Trial({"x": 1}, scratch, self.heard.append, lambda: self.stop, None, *plan)

    @property
    def checkpoint(self):
        return next(each.folder for each in reversed(self.heard) if isinstance(each, CheckpointReady))


@pytest.fixture
def supervisor(tmp_path):
    return Supervisor(tmp_path)


def test_a_report_is_said_with_its_figures(supervisor):
    supervisor.trial.report(1, 0.5, {"loss": 2})
    assert supervisor.heard == [Reported(EpochReport(1, 0.5, {"loss": 2.0}))]


def test_it_knows_what_to_plan_with_and_says_how_it_is_fitted(tmp_path):
    fresh, again = Supervisor(tmp_path), Supervisor(tmp_path, 750.0, 1)
    assert (fresh.trial.memory_mb, fresh.trial.halvings) == (None, 0)
    assert (again.trial.memory_mb, again.trial.halvings) == (750.0, 1)
    again.trial.fitted(Forecast(700.0, "8 images at once"))
    assert again.heard == [Fitted(Forecast(700.0, "8 images at once"))]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_divergence(supervisor, value):
    with pytest.raises(Diverged, match="epoch 3"):
        supervisor.trial.report(3, value)
    assert supervisor.heard == []


def test_epochs_are_counted_from_one(supervisor):
    with pytest.raises(ValueError, match="from 1"):
        supervisor.trial.report(0, 0.5)


def test_a_checkpoint_is_a_copy_that_later_writes_do_not_reach(supervisor):
    file = supervisor.trial.folder / "model" / "weights"
    file.parent.mkdir()
    file.write_text("one")
    supervisor.trial.report(1, 0.5)
    supervisor.trial.checkpoint()
    file.write_text("two")
    copy = supervisor.checkpoint
    assert (copy / WORK / "model" / "weights").read_text() == "one"
    assert read_reports(copy) == [EpochReport(1, 0.5)]


def test_a_trial_that_goes_on_keeps_its_earlier_reports(supervisor):
    supervisor.trial.report(1, 0.5)
    supervisor.trial.report(2, 0.6)
    supervisor.trial.checkpoint()
    resumed = Supervisor(supervisor.checkpoint)
    resumed.trial.report(3, 0.7)
    resumed.trial.checkpoint()
    assert [report.value for report in read_reports(resumed.checkpoint)] == [0.5, 0.6, 0.7]


def test_it_leaves_only_when_asked_and_no_handler_of_exceptions_keeps_it(supervisor):
    supervisor.trial.leave_if_asked()
    supervisor.stop = True
    assert supervisor.trial.stop_asked
    assert not issubclass(Paused, Exception)
    with pytest.raises(Paused):
        supervisor.trial.leave_if_asked()


def test_an_objective_that_no_other_process_could_import_is_refused_in_a_line():
    with pytest.raises(ValueError, match="cannot be sent"):
        PickledObjective.of(lambda trial: None, None)


def imports():
    raise ModuleNotFoundError("No module named 'torch'")


def objective(trial):
    pass


def test_preparing_runs_what_the_objective_wants_run_first():
    with pytest.raises(ModuleNotFoundError, match="torch"):
        warm_up_objective(PickledObjective.of(print, imports))
    warm_up_objective(PickledObjective.of(print, None))


def says_its_plan(trial):
    trial.fitted(Forecast(trial.memory_mb, f"{trial.halvings} times half of {trial.shared_files}"))


def test_the_process_of_a_trial_gives_it_what_it_has_to_plan_with(tmp_path, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    heard = []
    packed = PickledObjective.of(says_its_plan, None)
    assert run_objective(heard.append, packed, {"x": 1}, tmp_path, tmp_path / "data", 750.0, 1) == "completed"
    assert heard[1:] == [Fitted(Forecast(750.0, f"1 times half of {tmp_path / 'data'}"))]
