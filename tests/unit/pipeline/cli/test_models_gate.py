"""What `models gate` says and how it ends."""

import json
from types import SimpleNamespace

import pytest

from pipeline.cli import models_gate
from pipeline.errors import ConfigError, GateRefusedError
from pipeline.promotion.gate import GateDecision, Verdict
from pipeline.stages import register
from pipeline.tracking import model_versions
from pipeline.tracking.registry import RegisteredVersion
from pipeline.tracking.version_choice import StoredVersion, choose

REFUSED = GateDecision(False, (Verdict("better", False, "p 0.4 > 0.05"),), 1, 0.05)
PROMOTED = GateDecision(True, (Verdict("better", True, "p 0.01 <= 0.05"),), 1, 0.05)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Calls of the gate; `answer` is its decision."""
    monkeypatch.chdir(tmp_path)
    calls = SimpleNamespace(answer=PROMOTED, made=[])

    def judge(name, number, config, tracker, *, dry_run):
        calls.made.append((name, number, config.registry.gate.confidence, dry_run))
        return RegisteredVersion(name, str(number), ("challenger",)), calls.answer

    def find(choice, connection):
        return choose(choice, ["cats"], lambda name: {"2": StoredVersion(name, "2", ("challenger",), None, "")})

    monkeypatch.setattr(register, "judge_again", judge)
    monkeypatch.setattr(model_versions, "find_version", find)
    return calls


def test_a_promotion_is_shown_with_its_rules(asked, capsys):
    models_gate.gate()
    out = capsys.readouterr().out
    assert "cats/2 challenger" in out
    assert "gate: promoted: the first decision" in out
    assert "p 0.01 <= 0.05" in out
    assert asked.made == [("cats", 2, 0.95, False)]


def test_a_refusal_is_shown_and_ends_with_3(asked, capsys):
    asked.answer = REFUSED
    with pytest.raises(GateRefusedError, match="the gate would not promote cats/2") as refused:
        models_gate.gate(dry_run=True, set_=["registry.gate.confidence=0.9"])
    assert refused.value.exit_code == 3
    assert "p 0.4 > 0.05" in capsys.readouterr().out
    assert asked.made == [("cats", 2, 0.9, True)]


def test_as_json_it_is_one_document(asked, capsys):
    models_gate.gate(as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert (content["version"], content["decision"]["promotes"], content["decision"]["number"]) == ("2", True, 1)


def test_about_the_champion_itself_there_is_nothing_to_decide(asked, capsys):
    asked.answer = None
    models_gate.gate()
    assert "cats/2 is the champion's own model" in capsys.readouterr().out


def test_an_unknown_version_is_refused_before_anything_is_asked(asked):
    with pytest.raises(ConfigError, match="cats has no version 9"):
        models_gate.gate("cats/9")
    assert asked.made == []
