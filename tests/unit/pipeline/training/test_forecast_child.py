import io
import json
import os
import sys

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.training import forecast_child
from pipeline.training.memory_forecast import Line, StepMemory, TrainingMemory
from pipeline.training.numerics import Numerics

NUMERICS = Numerics("cpu", "fp32", 1, "eager", "matmul", 128, "2.13", "Some CPU")
STEP = StepMemory((Line(0.0, 10.0),), (Line(0.0, 0.1),))
MEMORY = TrainingMemory(5.0, STEP, None, 1e9)


class Work:
    """What the process calls; `held_mb` grows with each call."""

    def __init__(self):
        self.asked, self.held_mb, self.fails = [], 300.0, None

    def memory_of(self, config, classes, numerics):
        self.asked.append((config, classes, numerics))
        self.held_mb += 100
        return MEMORY

    def speed_of(self, config, classes, numerics, images, *, checkpointing):
        self.asked.append((config, classes, numerics, images, checkpointing))
        return 42.0

    def resolve(self, compute, batch_size):
        self.held_mb += 100  # the first time on a machine
        if self.fails:
            raise self.fails
        return NUMERICS


@pytest.fixture
def work(monkeypatch):
    work = Work()
    for name in ("memory_of", "speed_of"):
        monkeypatch.setattr(forecast_child, name, getattr(work, name))
    monkeypatch.setattr(forecast_child.resolve_numerics, "resolve", work.resolve)
    monkeypatch.setattr(forecast_child, "tree_memory_mb", lambda pid: work.held_mb)
    monkeypatch.setattr(forecast_child, "_base_mb", 0.0)
    return work


CONFIG = resolve("small", None, [], {})


def request(**more):
    return {"config": CONFIG.model_dump(mode="json"), "classes": 4, **more}


def test_memory_is_answered_with_what_the_imports_hold_before_anything_is_measured_or_built(work):
    first, second = (forecast_child.answer_to(request()) for _ in range(2))
    assert first == second
    assert (first["base_mb"], first["device"]) == (300.0, "cpu")
    assert TrainingMemory.from_json(json.loads(json.dumps(first["memory"]))) == MEMORY
    assert work.asked == [(CONFIG, 4, NUMERICS)] * 2


def test_with_images_the_speed_is_answered(work):
    assert forecast_child.answer_to(request(images=32, checkpointing=True)) == {"images_per_s": 42.0}
    assert work.asked == [(CONFIG, 4, NUMERICS, 32, True)]


def test_each_line_is_answered_also_one_that_fails(work, monkeypatch):
    nice, answers = [], io.StringIO()
    monkeypatch.setattr(os, "nice", nice.append)

    def lines():
        yield json.dumps(request()) + "\n"
        work.fails = MachineUnfitError("no cuda device here")
        yield json.dumps(request()) + "\n"
        work.fails = RuntimeError("of torch")
        yield json.dumps(request()) + "\n"
        yield "{}\n"
        work.fails = None
        print("what a library prints is no answer")
        yield json.dumps(request(images=1, checkpointing=False)) + "\n"

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", lines())
        patch.setattr(sys, "stdout", answers)
        forecast_child.main()
    found = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert found[0]["base_mb"] == 300
    assert found[1:] == [
        {"error": "no cuda device here"},
        {"error": "RuntimeError: of torch"},
        {"error": "KeyError: 'config'"},
        {"images_per_s": 42.0},
    ]
    assert nice[0] > 0
