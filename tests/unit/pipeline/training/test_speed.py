import itertools
import json
from types import SimpleNamespace

import pytest

from pipeline.config.resolution import resolve
from pipeline.training import speed, time_forecast
from pipeline.training.loop import Training
from pipeline.training.speed import Timing, speed_of


def config_of(*settings: str):
    tiny = ("model.dims=[8,16]", "model.depths=[1,1]", "model.grid=4", "train.batch_size=8")
    return resolve("small", None, [*tiny, *settings], {})


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


class Measured(list):
    """The numerics of each measurement; `share[0]` is what each has of the processor."""

    share: list[float]


@pytest.fixture
def measured(monkeypatch):
    def measure(config, classes, numerics):
        measured.append(numerics)
        return Timing(10.0 * len(measured), share[0])

    share = [1.0]
    monkeypatch.setattr(speed, "measure", measure)
    measured = Measured()
    measured.share = share
    return measured


@pytest.fixture
def of(bench):
    def of(*settings: str, classes: int = 3, images: int = 4, checkpointing: bool = False, **changes):
        numerics = bench.with_numerics(**changes).numerics
        return speed_of(config_of(*settings), classes, numerics, images, checkpointing=checkpointing)

    return of


def test_it_is_timed_once_with_what_is_asked_for(folder, measured, of):
    assert [of(), of()] == [10, 10]
    assert [(one.micro_batch_size, one.activation_checkpointing) for one in measured] == [(4, False)]
    assert of(checkpointing=True) == 20
    assert measured[-1].activation_checkpointing
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "words",
    [
        {"images": 2},
        {"classes": 4},
        {"checkpointing": True},
        {"precision": "bf16"},
        {"threads": 2},
        {"kernel": "native 0123"},
        {"cpu": "another"},
    ],
)
def test_what_changes_the_speed_is_timed_anew(folder, measured, of, words):
    of()
    of(**words)
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("setting", "times"),
    [
        ("train.batch_size=4", 2),
        ("train.ema_decay=null", 2),
        ("train.learning_rate=0.1", 1),
        ("train.epochs=7", 1),
        ("model.drop_path=0.01", 1),
        ("model.dims=[16,16]", 2),
        ("compute.recompute=true", 2),
    ],
)
def test_settings_count_only_if_they_change_a_step(folder, measured, of, setting, times):
    of("train.ema_decay=0.9", "model.drop_path=0.1")
    of("train.ema_decay=0.9", "model.drop_path=0.1", setting)
    assert len(measured) == times


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"images_per_s": null}', '{"images_per_s": "fast"}'])
def test_a_damaged_file_is_timed_again_and_replaced(folder, measured, of, content):
    of()
    (path,) = folder.iterdir()
    path.write_text(content)
    assert [of(), of()] == [20, 20]
    assert json.loads(path.read_bytes()) == {"images_per_s": 20}


def test_without_a_folder_that_can_be_written_it_is_timed_again(folder, measured, of):
    folder.write_text("a file in its place")
    assert [of(), of()] == [10, 20]


def test_what_a_busy_machine_measures_is_not_kept(folder, measured, of):
    measured.share[0] = speed.UNDISTURBED - 0.01
    assert [of(), of()] == [10, 20]
    measured.share[0] = speed.UNDISTURBED
    assert [of(), of()] == [30, 30]


def test_it_times_whole_steps_of_the_training(bench, monkeypatch):
    clock, busy, steps = itertools.count(), itertools.count(), []
    step = Training.step

    def recorded(training, batch):
        steps.append((len(batch), training.model.training, training.numerics.micro_batch_size))
        step(training, batch)

    monkeypatch.setattr(Training, "step", recorded)
    times = {"monotonic": lambda: float(next(clock)), "process_time": lambda: 1.2 * next(busy)}
    monkeypatch.setattr(speed, "time", SimpleNamespace(**times))
    found = speed.measure(config_of(), 3, bench.with_numerics(micro_batch_size=4, threads=2).numerics)
    assert set(steps) == {(8, True, 4)}
    timed = max(speed.STEPS, int(time_forecast.TIMED_S))  # of a second each
    assert (len(steps), found.images_per_s) == (1 + timed, 8.0)
    assert found.processor_share == pytest.approx(1.2 / (timed * 2))


def test_steps_that_are_long_are_not_repeated(bench, monkeypatch):
    clock = itertools.count(step=int(speed.ENOUGH_S))
    times = {"monotonic": lambda: float(next(clock)), "process_time": lambda: 0.0}
    monkeypatch.setattr(speed, "time", SimpleNamespace(**times))
    assert speed.measure(config_of(), 3, bench.numerics).images_per_s == 8 / speed.ENOUGH_S


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_times_with_activation_checkpointing_as_the_numerics_say(bench, monkeypatch, checkpointing):
    found = []

    def timed(training):
        found.append(any(getattr(one, "_checkpoints", lambda: False)() for one in training.model.modules()))
        return Timing(1.0, 1.0)

    monkeypatch.setattr(speed, "_timed", timed)
    numerics = bench.with_numerics(activation_checkpointing=checkpointing).numerics
    assert speed.measure(config_of(), 3, numerics) == Timing(1.0, 1.0)
    assert found == [checkpointing]
