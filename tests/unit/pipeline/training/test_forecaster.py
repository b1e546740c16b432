import os
import signal
import threading
import time

import pytest
from forecasting import FakeProcess

from pipeline.config.resolution import resolve
from pipeline.data.subset import expected_images
from pipeline.errors import MachineUnfitError
from pipeline.training import forecaster
from pipeline.training.forecaster import CHECKPOINTS, WEIGHTS, TrainingForecaster
from pipeline.training.memory_forecast import LIBRARIES_MB, MLFLOW_MB
from pipeline.training.memory_limit import Limit

pytestmark = pytest.mark.usefixtures("round_memory_figures")

STATES_MB = 2 * 3 * 5.0
TRIAL_MB = 300 + LIBRARIES_MB + STATES_MB
"""Without a step."""
RUN_MB = TRIAL_MB + MLFLOW_MB


@pytest.fixture
def process(tmp_path, monkeypatch):
    return FakeProcess(tmp_path, monkeypatch)


@pytest.fixture
def forecasts(process):
    with TrainingForecaster() as forecasts:
        yield forecasts
    assert process.are_gone


def config_of(*settings: str, model: str = "small"):
    return resolve(
        model, None, ["train.batch_size=128", "train.ema_decay=null", "train.optimizer=adamw", *settings], {}
    )


def test_a_training_that_fits_has_every_figure(forecasts, process):
    config = config_of("train.epochs=2", "data.source=synthetic")
    found = forecasts.forecast(config, RUN_MB + 1280)
    training, validation = expected_images(config.data)
    images = 2 * (training + validation / 3)
    assert found.to_json() == {
        "peak_mb": RUN_MB + 1280,
        "limit_mb": RUN_MB + 1280,
        "micro_batch_size": 128,
        "checkpointing": False,
        "images_per_s": 100.0,
        "seconds": round(images / 100, 1),
        "pflop": float(f"{images * (1e9 + 12.8e9 / 128) / 1e15:.4g}"),
        "disk_mb": (CHECKPOINTS * 3 + WEIGHTS) * 5.0,
        "fits": True,
    }
    first, second = process.requests
    assert first["config"] == second["config"] == config.model_dump(mode="json")
    assert first["classes"] == second["classes"] == len(config.data.class_names)
    assert "images" not in first
    assert (second["images"], second["checkpointing"]) == (128, False)


def test_fewer_images_at_once_are_what_is_timed(forecasts, process):
    found = forecasts.forecast(config_of(), RUN_MB + 5 + 640)
    assert (found.micro_batch_size, found.checkpointing, found.peak_mb) == (64, False, RUN_MB + 5 + 640)
    found = forecasts.forecast(config_of(), RUN_MB + 5 + 9)
    assert (found.micro_batch_size, found.checkpointing) == (2, True)
    assert [(one["images"], one["checkpointing"]) for one in process.requests if "images" in one] == [
        (64, False),
        (2, True),
    ]


def test_what_does_not_fit_is_not_timed(forecasts, process):
    found = forecasts.forecast(config_of(), RUN_MB)
    assert not found.fits
    assert (found.peak_mb, found.limit_mb, found.images_per_s, found.seconds) == (RUN_MB + 9, RUN_MB, None, None)
    assert len(process.requests) == 1


def test_a_trial_holds_no_mlflow(forecasts):
    found = forecasts.forecast_trial(config_of(), TRIAL_MB + 1280)
    assert (found.micro_batch_size, found.peak_mb) == (128, TRIAL_MB + 1280)


def test_without_a_limit_it_is_that_of_a_training_here(forecasts, monkeypatch):
    asked = []

    def limit_of(compute, device):
        asked.append((compute.max_memory_mb, device))
        return limits.pop()

    limits = [None, Limit(RUN_MB + 5 + 640, "free")]
    monkeypatch.setattr(forecaster, "limit_of", limit_of)
    assert forecasts.forecast(config_of()).micro_batch_size == 64
    unlimited = forecasts.forecast(config_of("compute.max_memory_mb=7000"))
    assert (unlimited.micro_batch_size, unlimited.limit_mb, unlimited.fits) == (128, None, True)
    assert asked == [(None, "cpu"), (7000, "cpu")]


def test_what_the_config_asks_for_is_forecast(forecasts):
    assert forecasts.forecast(config_of("compute.micro_batch_size=32"), 1.0).micro_batch_size == 32
    assert forecasts.forecast(config_of("compute.recompute=true"), 1e6).checkpointing
    averages = forecasts.forecast(config_of("train.ema_decay=0.9"), 1e6)
    assert averages.peak_mb == RUN_MB + 1280 + 2 * 5
    assert averages.disk_mb == (CHECKPOINTS * 4 + WEIGHTS) * 5.0
    muon = forecasts.forecast(config_of("train.optimizer=muon"), 1e6)
    assert muon.disk_mb == (CHECKPOINTS * 2 + WEIGHTS) * 5.0


def test_an_architecture_is_asked_for_once(forecasts, process):
    for settings in ([], ["train.learning_rate=0.1"], ["train.batch_size=64"], ["model.dropout=0.0"]):
        forecasts.memory(config_of(*settings), 10)
    assert len(process.requests) == 1
    for config, classes in (
        (config_of(model="vanilla"), 10),
        (config_of(), 9),
        (config_of("compute.precision=bf16"), 10),
        (config_of("train.optimizer=muon"), 10),
        (config_of("compute.kernel=eager"), 10),
        (config_of("compute.threads=1"), 10),
    ):
        forecasts.memory(config, classes)
    assert len(process.requests) == 7
    assert len(process.pids) == 1


def test_an_error_answer_is_raised_and_the_next_question_is_answered(forecasts, process):
    process.does("fails once")
    with pytest.raises(MachineUnfitError, match="no cuda device here"):
        forecasts.memory(config_of(), 2)
    assert forecasts.memory(config_of(), 3).base_mb == 300
    assert len(process.pids) == 1


@pytest.mark.parametrize("does", ["dies", "dies in the middle"])
def test_a_process_that_dies_is_an_error_and_the_next_question_starts_another(forecasts, process, does):
    process.does(does)
    with pytest.raises(MachineUnfitError, match=r"the process that forecasts trainings ended \(exit code"):
        forecasts.memory(config_of(), 10)
    process.does("answers")
    assert forecasts.memory(config_of(), 10).base_mb == 300
    assert len(process.pids) == 2


def test_a_process_that_was_killed_between_questions_is_an_error(forecasts, process):
    forecasts.memory(config_of(), 10)
    os.kill(process.pids[0], signal.SIGKILL)
    assert process.are_gone
    with pytest.raises(MachineUnfitError, match="ended"):
        forecasts.memory(config_of(), 3)
    assert forecasts.memory(config_of(), 3).base_mb == 300


def test_a_process_that_does_not_answer_is_ended(forecasts, process, monkeypatch):
    monkeypatch.setattr(forecasts, "_answer_s", 1.0)
    process.does("hangs")
    with pytest.raises(MachineUnfitError, match="no forecast within 1 s; try again when the machine is less busy"):
        forecasts.memory(config_of(), 10)
    assert process.are_gone


def when_asked(process, do) -> threading.Thread:
    """Do something as soon as the process has a request."""

    def wait():
        until = time.monotonic() + 20
        while not process.requests and time.monotonic() < until:
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ctrl_c_while_it_is_waited_for_leaves_no_process(forecasts, process):
    process.does("hangs")
    interrupting = when_asked(process, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        forecasts.memory(config_of(), 10)
    interrupting.join()
    assert process.are_gone, "though it is not closed yet"
    process.does("answers")
    assert forecasts.memory(config_of(), 10).base_mb == 300


def test_ctrl_c_is_for_the_parent_alone(forecasts, process):
    forecasts.memory(config_of(), 10)
    assert os.getsid(process.pids[0]) != os.getsid(0)


def test_closed_by_another_thread_a_question_ends_at_once(forecasts, process):
    process.does("hangs")
    closing = when_asked(process, forecasts.close)
    with pytest.raises(MachineUnfitError, match="ended"):
        forecasts.memory(config_of(), 10)
    closing.join()
    assert process.are_gone


def test_closing_twice_or_before_a_question_does_nothing(forecasts, process):
    forecasts.close()
    forecasts.memory(config_of(), 10)
    forecasts.close()
    forecasts.close()
    assert process.are_gone
