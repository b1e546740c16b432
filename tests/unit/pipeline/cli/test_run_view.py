"""What a run shows of its models, beyond what `test_run.py` sees of it."""

from types import SimpleNamespace

import pytest

from pipeline.cli.run_view import refusal, show_outcomes
from pipeline.config.resolution import resolve
from pipeline.promotion.gate import GateDecision, Verdict
from pipeline.stages.results import Registration
from pipeline.stages.runner import ModelOutcome, Runner, StageOutcome

TRACKER = SimpleNamespace(run_id=lambda run: None, location=lambda run: "in MLflow")


@pytest.fixture
def outcomes(house):
    """Two models, the second registered last."""
    runner = Runner(house.context)
    for model in ("small", "vanilla"):
        runner.run(resolve(model, sets=["data.source=synthetic"]))
    return runner.outcomes


def refuse(outcome: ModelOutcome, decision: GateDecision) -> None:
    made = outcome.results[Registration]
    outcome.results.add(made.model_copy(update={"decision": decision}))


def test_aliases_are_shown_of_the_newest_registration_only(outcomes, capsys):
    show_outcomes(outcomes, TRACKER, False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  model ")]
    assert lines == ["  model m, version 1", "  model m, version 1 (champion)"]


def test_what_the_gate_decided_is_shown_with_its_rules_of_a_version_that_is_made_now(outcomes, capsys):
    verdict = Verdict("better", False, "p 0.4 > 0.025")
    for outcome in outcomes:
        refuse(outcome, GateDecision(False, (verdict,), 2, 0.025))
    skipped = outcomes[0].stages[-1]
    outcomes[0].stages[-1] = StageOutcome(skipped.stage, skipped.fingerprint, "skipped", "up to date", 0.0)
    show_outcomes(outcomes, TRACKER, False)
    out = capsys.readouterr().out
    assert out.count("  gate: not promoted: decision 2 on these test images") == 1
    assert out.count("p 0.4 > 0.025") == 1
    assert refusal(outcomes).startswith("the gate did not promote m version 1 (vanilla): registered, and")
    refuse(outcomes[1], GateDecision(True, (), 1, 0.05))
    assert refusal(outcomes) is None


def test_a_training_shows_its_run_and_before_one_the_counts_of_images(house, outcomes, capsys):
    show_outcomes(outcomes, TRACKER, False)
    assert "in MLflow" in capsys.readouterr().out
    prepared = house.run(through="prepare")
    show_outcomes([prepared], TRACKER, False)
    assert "  12 train, 12 validation, 12 test images in " in capsys.readouterr().out


def test_made_up_images_are_not_compared_with_the_published_figures_and_the_reason_is_said_once(outcomes, capsys):
    show_outcomes(outcomes, TRACKER, False)
    assert capsys.readouterr().out.count("not compared with the published figures: data set synthetic") == 1


def test_an_unfinished_stage_is_named_with_what_is_up_to_date(house, capsys):
    outcome = ModelOutcome(house.run(through="prepare").config)
    outcome.stages = [
        StageOutcome("prepare", "f", "skipped", "up to date", 0.0),
        StageOutcome("train", "f", "done", "", 61.0),
    ]
    outcome.unfinished = "evaluate"
    show_outcomes([outcome], TRACKER, False, how="not done")
    assert capsys.readouterr().out == "vanilla: train 1 min 1 s, prepare up to date, evaluate not done\n"
