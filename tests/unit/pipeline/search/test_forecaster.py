import threading
import time

import pytest
from forecasting import FakeProcess

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.search import forecaster
from pipeline.search.forecaster import TrialForecaster
from pipeline.training.memory_forecast import LIBRARIES_MB
from tuning.capacity import Node
from tuning.forecast import Forecast

pytestmark = pytest.mark.usefixtures("round_memory_figures")

BASE_MB = 300 + LIBRARIES_MB + 2 * 3 * 5.0
NODE = Node("here", 1.0, 1000)


@pytest.fixture
def process(tmp_path, monkeypatch):
    return FakeProcess(tmp_path, monkeypatch)


@pytest.fixture
def forecast(process):
    base = resolve("small", None, ["train.batch_size=128", "train.ema_decay=null", "train.optimizer=adamw"], {})
    forecast = TrialForecaster(base, 10)
    yield forecast
    forecast.close()
    assert process.are_gone


def test_it_says_how_the_trial_is_fitted_to_its_cap(forecast):
    assert forecast({}, int(BASE_MB + 1280), NODE) == Forecast(BASE_MB + 1280, "")
    assert forecast({}, int(BASE_MB + 5 + 640), NODE) == Forecast(BASE_MB + 5 + 640, "64 images at once")
    least = Forecast(BASE_MB + 5 + 4, "1 image at once and activation checkpointing")
    assert forecast({}, 10, NODE) == least, "it does not fit"


def test_the_settings_of_the_trial_are_those_that_count(forecast, process):
    assert forecast({"train.batch_size": 64}, 10**6, NODE).peak_mb == BASE_MB + 640
    forecast({"model.depths": [1, 1]}, 10**6, NODE)
    assert [request["config"]["model"]["depths"] for request in process.requests][-1] == [1, 1]


def test_left_alone_it_ends_its_process_and_starts_another_when_asked(forecast, process, monkeypatch):
    monkeypatch.setattr(forecaster, "IDLE_S", 0.05)
    forecast({}, 10**6, NODE)
    assert process.are_gone
    assert forecast({}, 10**6, NODE).peak_mb == BASE_MB + 1280, "known without the process"
    assert len(process.pids) == 1
    forecast({"model.depths": [1, 1]}, 10**6, NODE)
    assert len(process.pids) == 2


def test_each_question_puts_the_end_off(forecast, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, seconds, close):
            self.seconds, self.close, self.state = seconds, close, "new"
            timers.append(self)

        def start(self):
            self.state = "runs"

        def cancel(self):
            self.state = "cancelled"

    monkeypatch.setattr(forecaster.threading, "Timer", Timer)
    forecast({}, 10**6, NODE)
    forecast({}, 10**6, NODE)
    assert [timer.state for timer in timers] == ["cancelled", "runs"]
    assert all(timer.daemon and timer.seconds == forecaster.IDLE_S for timer in timers)
    assert timers[-1].close == forecast._close_idle, "which waits for a question that has come since"
    forecast.close()
    assert timers[-1].state == "cancelled"


def test_it_closes_at_once_though_there_is_no_answer_yet(forecast, process):
    process.does("hangs")
    errors = []

    def ask():
        try:
            forecast({}, 10**6, NODE)
        except MachineUnfitError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until = time.monotonic() + 20
    while not process.requests and time.monotonic() < until:
        time.sleep(0.01)
    forecast.close()
    asking.join(5)
    assert not asking.is_alive()
    assert len(errors) == 1
    assert process.are_gone


def test_the_end_for_being_idle_waits_for_a_question_that_has_come_since(forecast, process):
    with forecast._lock:
        forecast._trainings.memory(forecast.base, 10)
        ending = threading.Thread(target=forecast._close_idle)
        ending.start()
        ending.join(0.1)
        assert ending.is_alive()
        forecast._trainings.memory(forecast.base, 9)
        assert len(process.pids) == 1
    ending.join()
    assert process.are_gone
