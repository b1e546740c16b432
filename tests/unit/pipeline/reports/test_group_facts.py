"""Trainings that differ in their seed: what stands for all of them, and what is forecast of them."""

from types import SimpleNamespace

import pytest
from reported import training

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.reports.group_facts import GroupFacts, with_forecast

FEW, SOME, MANY = [1] * 4 + [0] * 6, [1] * 6 + [0] * 4, [1] * 9 + [0]


def test_the_median_is_the_one_in_the_middle_by_test_accuracy_and_the_lower_of_two():
    trainings = [training(MANY, 0, 0.1), training(FEW, 1, 0.9), training(SOME, 2, 0.5)]
    assert GroupFacts("A", tuple(trainings)).median.seed == 2
    assert GroupFacts("A", tuple(trainings[:2])).median.seed == 1
    not_evaluated = training(None, 3, 0.99)
    assert GroupFacts("A", (not_evaluated, *trainings[:2])).median.seed == 1
    by_validation = (training(None, 0, 0.9), training(None, 1, 0.2), training(None, 2, 0.4))
    assert GroupFacts("A", by_validation).median.seed == 2


def test_the_spread_is_over_the_seeds_that_have_the_figure():
    group = GroupFacts("A", (training(MANY, 0, 0.5), training(FEW, 1, 0.7), training(None, 2, 0.9)))
    assert group.validation.count == 3
    assert (group.test.count, group.test.mean) == (2, pytest.approx(0.65))
    assert [run.key for run in group.side.runs] == ["f0-0", "f0-1"]
    assert group.title == "A: vanilla, 2 classes, seeds 0, 1, 2"
    assert group.published.reason.startswith("data set that is not here, not cifar10")
    assert group.points_over_published is None


def test_a_forecast_is_of_the_training_as_it_was_computed():
    asked = []
    config = resolve("vanilla", sets=["data.source=synthetic", "train.batch_size=128"])
    one = training(SOME, config=config)
    one.run.trained.numerics.update({"micro_batch_size": 32, "activation_checkpointing": None, "device": "cpu"})
    found = with_forecast(GroupFacts("A", (one,)), lambda config: asked.append(config) or SimpleNamespace())
    assert found.forecast is not None
    compute = asked[0].compute
    assert (compute.micro_batch_size, compute.precision, compute.threads) == (32, "fp32", 2)
    assert asked[0].train == config.train


def test_what_a_training_said_of_its_time_counts_more_than_what_this_machine_says():
    here = SimpleNamespace(seconds=7.0)
    assert GroupFacts("A", (training(SOME, forecast_s=50.0),), forecast=here).forecast_s == 50.0
    assert GroupFacts("A", (training(SOME),), forecast=here).forecast_s == 7.0
    assert GroupFacts("A", (training(SOME),)).forecast_s is None


def test_what_cannot_be_forecast_is_said():
    def unfit(config):
        raise MachineUnfitError("no such device here")

    config = resolve("vanilla", sets=["data.source=synthetic"])
    assert (
        with_forecast(GroupFacts("A", (training(SOME, config=config),)), unfit).no_forecast == "no such device here"
    )
    assert with_forecast(GroupFacts("A", (training(SOME),)), unfit).no_forecast == "its settings are not here"
