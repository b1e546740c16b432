import itertools

import torch

from pipeline.evaluation import latency


class Model(torch.nn.Module):
    """Takes as long as it is told to, by a clock of its own."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, image):
        assert image.shape == (1, 3, 32, 32)
        self.clock[0] += next(self.seconds)
        self.calls += 1
        return image


def timed(monkeypatch, seconds):
    clock = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    model = Model(clock, iter(seconds))
    return latency.measure(model), model.calls


def test_the_fastest_pass_counts_but_for_the_first_ones(monkeypatch):
    found, calls = timed(monkeypatch, [0.001, 0.001, 0.001, 0.02, 0.01, *itertools.repeat(0.03, 28)])
    assert round(found.ms, 6) == 10
    assert calls == 33


def test_a_slow_model_is_timed_for_a_second_and_at_least_once(monkeypatch):
    assert timed(monkeypatch, itertools.repeat(0.2))[1] == 5
    found, calls = timed(monkeypatch, itertools.repeat(2.0))
    assert (round(found.ms), calls) == (2000, 4)


def test_it_says_what_computed_it(monkeypatch):
    found, _ = timed(monkeypatch, itertools.repeat(0.1))
    assert f"{torch.get_num_threads()} threads, " in found.machine
    assert f"torch {torch.__version__}" in found.machine


def test_it_is_kept_beside_the_predictions_and_one_that_is_missing_or_damaged_is_none(tmp_path):
    latency.keep(latency.Latency(2.5, "m"), tmp_path)
    assert latency.kept(tmp_path) == latency.Latency(2.5, "m")
    (tmp_path / "latency.json").write_text("{")
    assert latency.kept(tmp_path) is latency.kept(tmp_path / "none") is None
