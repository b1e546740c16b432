import dataclasses

import pytest
import torch

from pipeline.errors import InterruptedRunError
from pipeline.progress import SilentReporter
from pipeline.training import time_forecast
from pipeline.training.time_forecast import TIMED_S, TIMED_STEPS, Stopwatch, TotalWork
from sequencer_models import catalog
from sequencer_models.flops import training_flops


def test_the_default_run_is_a_quarter_of_a_petaflop():
    flops = training_flops(catalog.build("small", 4), torch.zeros(1, 3, 32, 32))
    assert (
        TotalWork(11, 18_000, 2_000).in_words(402, flops)
        == "about 8 min 31 s for 11 epochs at 402 images/s, 0.25 PFLOP"
    )


def test_the_first_step_is_not_timed_and_the_speed_comes_after_enough_steps_and_time():
    watch = Stopwatch()
    assert watch.step(100.0, 10) is None
    for step in range(1, TIMED_STEPS):
        assert watch.step(100.0 + step, 10) is None
    assert watch.step(100.0 + TIMED_STEPS, 10) == 10
    hasty = Stopwatch()
    assert [hasty.step(TIMED_S * step / 10, 10) for step in range(10)] == [None] * 10
    assert hasty.step(TIMED_S, 10) == pytest.approx(100 / TIMED_S)


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_a_training_reports_its_forecast_once_and_a_resumed_one_does_not(bench, leave_after, tmp_path, monkeypatch):
    monkeypatch.setattr(time_forecast, "TIMED_S", 0.0)
    notes = Notes()
    bench = dataclasses.replace(bench, reporter=notes).with_config(epochs=5)  # of 3 steps
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path / "parts", leave_after(9))
    assert len(notes.told) == 1
    assert "for 5 epochs at" in notes.told[0]
    bench.fit(tmp_path / "parts")
    assert len(notes.told) == 1


def test_the_arithmetic_of_the_optimiser_is_part_of_the_forecast(bench, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(time_forecast, "TIMED_S", 0.0)
    monkeypatch.setattr(TotalWork, "in_words", lambda work, speed, flops: str(told.append(flops)))
    for name in ("adamw", "muon"):
        training = bench.with_config(epochs=3, optimizer=name).fit(tmp_path / name)
    assert told[1] - told[0] == training.optimizer.flops / bench.config.batch_size > 0
