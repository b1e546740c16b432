import numpy as np
import pytest

from pipeline.config.schema import GateConfig
from pipeline.promotion.gate import Pairing, Side, decide, decide_first, not_compared
from pipeline.promotion.paired_tests import PairCounts, better, not_worse

DEFAULT = GateConfig()
CHAMPION = Side(0.9, parameters=1000, ece=0.02)
SAME_COST = Side(0.9, parameters=1000, ece=0.02)
SMALLER = Side(0.9, parameters=900, ece=0.02)


def paired(first: int, second: int, images: int = 4000, **classes: tuple[int, int, int]) -> Pairing:
    return Pairing(PairCounts(images, first, second), {name: PairCounts(*counts) for name, counts in classes.items()})


def verdicts(decision):
    return {verdict.rule: verdict.holds for verdict in decision.verdicts}


def test_the_first_model_becomes_champion_without_a_comparison():
    decision = decide_first(DEFAULT, Side(0.3))
    assert (decision.promotes, decision.verdicts, decision.number) == (True, (), 0)


@pytest.mark.parametrize(
    ("rules", "side", "promotes"),
    [
        (GateConfig(least_accuracy=0.85), Side(0.85), True),
        (GateConfig(least_accuracy=0.85), Side(0.8499), False),
        (GateConfig(largest_ece=0.05), Side(0.9, ece=0.05), True),
        (GateConfig(largest_ece=0.05), Side(0.9, ece=0.051), False),
        (GateConfig(largest_ece=0.05), Side(0.9), False),
    ],
)
def test_rules_without_a_champion_hold_for_the_first_model_too_and_for_every_later_one(rules, side, promotes):
    assert decide_first(rules, side).promotes == promotes
    assert decide(rules, side, CHAMPION, paired(20, 90), 0).promotes == promotes


def test_a_better_model_is_promoted_whatever_it_costs_and_a_luckier_one_is_not():
    larger = Side(0.91, parameters=10_000)
    assert decide(DEFAULT, larger, CHAMPION, paired(100, 130), 0).promotes
    assert not decide(DEFAULT, larger, CHAMPION, paired(100, 120), 0).promotes
    assert better(PairCounts(4000, 100, 130)) <= 0.05 < better(PairCounts(4000, 100, 120))


def test_an_equal_model_is_promoted_if_it_is_cheaper_and_only_then():
    equal = paired(20, 20)
    assert not_worse(equal.counts, 0.005) <= 0.05
    assert decide(DEFAULT, SMALLER, CHAMPION, equal, 0).promotes
    assert not decide(DEFAULT, SAME_COST, CHAMPION, equal, 0).promotes
    assert decide(GateConfig(equal_must_be_cheaper=False), SAME_COST, CHAMPION, equal, 0).promotes
    assert not decide(GateConfig(equal_within_points=None), SMALLER, CHAMPION, equal, 0).promotes


def test_who_is_better_is_promoted_even_where_that_it_is_not_worse_cannot_be_shown():
    """Five images of 400: McNemar's test is sure of it, but a share of images is not known from five."""
    few = paired(0, 5, images=400)
    assert better(few.counts) <= 0.05 < not_worse(few.counts, 0.005)
    assert decide(DEFAULT, SAME_COST, CHAMPION, few, 0).promotes
    assert decide(GateConfig(equal_within_points=None), SAME_COST, CHAMPION, few, 0).promotes


def test_a_cheaper_model_must_be_shown_to_be_no_worse():
    """Just as many right, but so many disputed images that half a point either way cannot be told."""
    assert not decide(DEFAULT, SMALLER, CHAMPION, paired(200, 200), 0).promotes


@pytest.mark.parametrize(
    ("challenger", "champion", "cheaper"),
    [
        ((900, None), (1000, None), True),
        ((1000, None), (1000, None), False),
        ((None, None), (1000, None), False),
        ((900, 2.0), (1000, 3.0), True),
        ((900, 3.0), (1000, 2.0), False),
        ((900, 2.05), (1000, 2.0), True),
        ((900, 2.2), (1000, 2.0), False),
        ((1000, 1.0), (1000, 2.0), False),  # one network trained twice, on a machine that was busy once
        ((1100, 1.0), (1000, 2.0), False),
        ((900, 2.0), (1000, None), True),
    ],
)
def test_cheaper_is_fewer_parameters_and_no_higher_latency_as_far_as_they_are_known(challenger, champion, cheaper):
    sides = [Side(0.9, parameters=parameters, latency_ms=ms) for parameters, ms in (challenger, champion)]
    assert verdicts(decide(DEFAULT, *sides, paired(20, 20), 0))["cheaper"] == cheaper


@pytest.mark.parametrize(("before", "level"), [(0, 0.05), (1, 0.025), (9, 0.005)])
def test_each_decision_on_the_same_images_is_held_to_a_stricter_level(before, level):
    decision = decide(DEFAULT, SAME_COST, CHAMPION, paired(100, 130), before)
    assert (decision.number, decision.level) == (before + 1, pytest.approx(level))
    assert decision.promotes == (better(PairCounts(4000, 100, 130)) <= level)


def test_no_class_may_be_lost_and_that_has_to_be_shown_of_each():
    rules = GateConfig(class_drop_points=5)
    even = {"cat": (1000, 20, 25), "dog": (1000, 20, 25)}
    assert decide(rules, SAME_COST, CHAMPION, paired(100, 150, **even), 0).promotes
    lost = {"cat": (1000, 60, 20), "dog": (1000, 0, 60)}
    decision = decide(rules, SAME_COST, CHAMPION, paired(100, 150, **lost), 0)
    assert not decision.promotes
    assert verdicts(decision)["no class worse by 5 points"] is False
    assert "cat -4.00 points" in decision.verdicts[-1].figures, "the class that is the least certain is named"
    too_few = {"cat": (30, 1, 1), "dog": (1000, 20, 25)}
    assert not decide(rules, SAME_COST, CHAMPION, paired(100, 150, **too_few), 0).promotes
    assert not decide(rules, SAME_COST, CHAMPION, paired(100, 150), 0).promotes, "no classes, no evidence"


def test_a_champion_that_cannot_be_compared_stays_whatever_the_rules_say():
    decision = not_compared(GateConfig(least_accuracy=0.5), Side(0.99), "it was judged on other images")
    assert (decision.promotes, decision.why_not_compared) == (False, "it was judged on other images")
    assert (decision.number, decision.level) == (0, None)
    assert verdicts(decision) == {"accuracy at least 50.00%": True}


def test_every_rule_comes_with_its_figures():
    decision = decide(GateConfig(least_accuracy=0.8), SMALLER, CHAMPION, paired(100, 130), 1)
    said = {verdict.rule: verdict.figures for verdict in decision.verdicts}
    assert said["better"].startswith(
        "+0.75 points: only the challenger is right on 130 images, only the champion on 100; p 0.0"
    )
    assert said["better"].endswith(" > 0.025")
    assert said["not worse by 0.5 points"].startswith("p ")
    assert said["cheaper"] == "900 parameters, the champion 1000"
    assert said["accuracy at least 80.00%"] == "accuracy 90.00%"


@pytest.mark.parametrize("disputed", [0.01, 0.05, 0.2])
def test_equal_models_are_rarely_promoted_and_models_worse_by_the_margin_too(disputed):
    """A small version of benchmarks/gate.py."""
    generator = np.random.default_rng(0)
    for challenger, difference in ((SAME_COST, 0.0), (SMALLER, -0.005)):
        shares = [(disputed - difference) / 2, (disputed + difference) / 2, 1 - disputed]
        drawn, times = np.unique(generator.multinomial(4000, shares, 150)[:, :2], axis=0, return_counts=True)
        found = [decide(DEFAULT, challenger, CHAMPION, paired(*map(int, counts)), 0).promotes for counts in drawn]
        assert np.average(found, weights=times) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
