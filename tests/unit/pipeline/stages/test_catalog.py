"""The list of stages, and that a stage is added by one file and one name."""

import importlib
import subprocess
import sys

import pytest

import pipeline.stages
from pipeline.errors import ConfigError
from pipeline.maintenance import retention
from pipeline.stages.catalog import STAGES, checked_name, stage_named, stages_through
from pipeline.stages.stage import Stage

FIFTH = """
from pipeline.stages.results import Evaluation
from pipeline.stages.stage import Stage
from pipeline.workspace.manifests import StageResult


class Praise(StageResult):
    text: str


class PraiseStage(Stage):
    name = "praise"
    version = 3
    result = Praise
    inputs = ("evaluate", "register")

    def reads(self, config, mlflow):
        return {"seed": config.seed}

    def run(self, config, made, folder, context):
        (folder / "praise.txt").write_text("well done")
        return Praise(folder=folder, text=f"{made[Evaluation].accuracy:.0%}: well done")


STAGE = PraiseStage()
"""


@pytest.fixture
def praise(tmp_path, monkeypatch):
    """One file, and one name in the list."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "praise.py").write_text(FIFTH)
    monkeypatch.setattr(pipeline.stages, "__path__", [*pipeline.stages.__path__, str(tmp_path / "new")])
    for module in ("catalog", "plan", "request", "runner"):
        found = importlib.import_module(f"pipeline.stages.{module}")
        if hasattr(found, "STAGES"):
            monkeypatch.setattr(found, "STAGES", (*STAGES, "praise"))
    importlib.invalidate_caches()
    yield importlib.import_module("pipeline.stages.praise")
    del sys.modules["pipeline.stages.praise"]
    del pipeline.stages.praise


def test_a_fifth_stage_is_one_file_and_one_name(house, praise):
    outcome = house.run(through="praise")
    assert outcome.results[praise.Praise].text == "50%: well done"
    assert (outcome.results[praise.Praise].folder / "praise.txt").exists()
    assert outcome.is_complete
    assert house.run(through="all").did_nothing
    kept = retention.decide(house.workspace, house.context.mlflow.address, frozenset)
    [(removable, why)] = [(one.removable, one.why) for one in kept if one.what == "praise"]
    assert (removable, why.partition("Z; ")[2]) == (False, "the newest from these inputs")
    house.run("seed=1", through="all")
    assert house.why["praise"] == "seed: 0 -> 1, evaluate changed, register changed"
    house.run(through="train", fresh=["train"])
    assert {stage for stage, one in house.plan(through="all").items() if one.runs} == {
        "evaluate",
        "register",
        "praise",
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_the_one_of_its_module_and_stands_on_those_before_it(name):
    stage = stage_named(name)
    assert isinstance(stage, Stage)
    assert stage.name == name
    assert set(stage.inputs) <= set(STAGES[: STAGES.index(name)])


def test_the_stages_through_one_are_those_before_it_and_itself():
    assert [stage.name for stage in stages_through("train")] == ["prepare", "train"]
    assert [stage.name for stage in stages_through()] == list(STAGES)


def test_all_stands_for_the_last_stage_and_an_unknown_one_is_refused():
    assert checked_name("all") == "register"
    assert checked_name("train") == "train"
    with pytest.raises(ConfigError, match="choose from prepare, train, evaluate, register, or all"):
        checked_name("tarin")


def test_the_command_line_offers_every_stage_without_loading_one():
    code = (
        "import sys; from pipeline.cli import options; print([str(one) for one in options.Stage])\n"
        "print([name for name in sys.modules if name.startswith('pipeline.stages.') or name == 'pydantic'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(["all", *STAGES]), "['pipeline.stages.catalog']"]
