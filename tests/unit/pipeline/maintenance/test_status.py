"""Which settings the status is about, and what it finds."""

import json
import subprocess
import sys

import pytest
from ledgers import end, write_ledger

from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.maintenance.status import Settings, status_of
from pipeline.search.store import SearchFolder
from pipeline.stages import last_runs
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import StageFolder
from tuning.space import Space


@pytest.fixture
def status(house):
    return lambda *asked, **more: status_of(house.workspace, house.context.mlflow, Settings(*asked, **more))


def settings_of(status) -> dict[str, str]:
    return {model.model: model.settings for model in status.models}


def test_without_settings_each_model_has_those_of_its_last_run(house, status):
    house.workspace.create()
    ran = resolve("vanilla", sets=["train.epochs=3"])
    last_runs.write(house.workspace, [ran])
    found = status()
    assert settings_of(found) == {name: "last run" if name == "vanilla" else "defaults" for name in MODEL_NAMES}
    [vanilla] = [model for model in found.models if model.model == "vanilla"]
    assert (vanilla.config, vanilla.changed_settings) == (ran, ["train.epochs=3"])
    assert all(model.changed_settings == [] for model in found.models if model is not vanilla)


def test_of_a_last_run_with_several_seeds_each_is_told(house, status):
    house.workspace.create()
    last_runs.write(house.workspace, [resolve("vanilla", flags={"seed": seed}) for seed in (0, 4)])
    labels = [model.label for model in status().models if model.model == "vanilla"]
    assert labels == ["vanilla, seed 0", "vanilla, seed 4"]
    assert [model.label for model in status(["vanilla"]).models] == ["vanilla"]


@pytest.mark.parametrize("asked", [{"models": ["vanilla"]}, {"sets": ["seed=0"]}, {"seed": 0}, {"recipe": "default"}])
def test_any_setting_that_is_given_counts_instead_of_the_last_run(house, status, asked):
    house.workspace.create()
    last_runs.write(house.workspace, [resolve("vanilla", sets=["train.epochs=3"])])
    found = status(**asked)
    assert set(settings_of(found).values()) == {"given"}
    assert len(found.models) == (1 if "models" in asked else len(MODEL_NAMES))
    assert {model.config for model in found.models if model.model == "vanilla"} == {resolve("vanilla")}


def test_a_file_stands_for_the_model_that_it_names(status, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("{model: {name: medium}, seed: 4}")
    found = status(file=file)
    assert settings_of(found) == {"medium": "given"}
    assert found.models[0].config.seed == 4
    assert settings_of(status(models=["medium"], file=file)) == {"medium": "given"}


def test_a_stage_that_a_command_is_making_is_running(house, status):
    asked = {"models": ["vanilla"], "sets": ["data.source=synthetic"]}
    assert status(**asked).models[0].running == set()
    decision = status(**asked).models[0].stages[1]
    with exclusive(StageFolder(house.workspace, "train", decision.fingerprint).lock_path, print, what="it"):
        assert status(**asked).models[0].running == {"train"}


def test_searches_are_those_of_the_models_that_are_meant(house, status):
    space = Space.parse({"train.learning_rate": {"uniform": [0.001, 0.01]}})
    for model in ("small", "vanilla"):
        folder = SearchFolder.of(house.workspace, resolve(model), space)
        folder.create()
        write_ledger(folder.path, [end("completed", 0.5)], 2)
    assert {one.model for one in status().searches} == {"small", "vanilla"}
    assert [one.model for one in status(["vanilla"]).searches] == ["vanilla"]


def test_runs_that_mlflow_does_not_have_are_counted(house, status):
    assert status().undelivered == 0
    house.run(through="evaluate")
    assert status().undelivered == 1


def test_looking_changes_nothing(house, status):
    status()
    assert list(house.workspace.root.iterdir()) == []
    assert json.dumps([one.why for one in status().models[0].stages]) == json.dumps(4 * ["not made yet"])


def test_without_a_search_nothing_of_tuning_is_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.maintenance.status import Settings, status_of\n"
        "from pipeline.tracking import settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "assert not status_of(place, settings.load(place, {}), Settings()).searches\n"
        "print([name for name in sys.modules if name.startswith('tuning')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
