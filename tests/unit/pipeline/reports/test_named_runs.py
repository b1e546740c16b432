"""What a word on the command line stands for."""

import json

import pytest

from pipeline.errors import ConfigError
from pipeline.reports.named_runs import NamedRun, RunFinder
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import RunRecord, StoreRecord


def registered(word: str) -> NamedRun | None:
    if word != "champion":
        return None
    return NamedRun("k9", "task/9", "small", 10, None)


@pytest.fixture
def place(house):
    """Three trainings of vanilla, which differ in their seed, and one with more epochs."""
    for words in (["seed=0"], ["seed=1"], ["seed=2"], ["train.epochs=5"]):
        house.run(*words, through="train")
    for number, folder in enumerate(sorted(house.workspace.stage("train").iterdir())):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        seed, epochs = manifest["reads"]["seed"], manifest["reads"]["train"]["epochs"]
        manifest["result"] |= {"run_name": f"seed {seed}, {epochs} epochs", "run_key": f"{folder.name}-{number}"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return house


@pytest.fixture
def finder(place):
    return RunFinder(place.workspace, place.context.mlflow.address, registered)


def one(finder, word):
    [side] = finder.find([word])
    [run] = side.runs
    return run


def test_a_run_is_found_by_its_name_its_key_and_the_beginning_of_it(finder):
    run = one(finder, "seed 1, 9 epochs")
    assert one(finder, run.key) == one(finder, run.key[:8]) == run
    assert run.settings["seed"] == 1
    assert run.settings["data"]["split_seed"] == 0, "its data are among its settings"
    with pytest.raises(ConfigError, match="no training here is called"):
        one(finder, run.key[:3])


def test_a_run_is_found_by_its_id_in_the_store_of_this_workspace(finder, place):
    run = one(finder, "seed 2, 9 epochs")
    delivery_state.write_store(place.workspace, run.key, StoreRecord(place.context.mlflow.address, "f00ba4", "1"))
    assert one(finder, "f00ba4").key == one(finder, "f00b").key == run.key
    elsewhere = RunFinder(place.workspace, "http://other")
    with pytest.raises(ConfigError, match="no training here"):
        elsewhere.find(["f00ba4"])


def test_runs_joined_by_a_plus_are_a_group(finder):
    [side] = finder.find(["seed 0, 9 epochs + seed 2, 9 epochs"])
    assert [run.settings["seed"] for run in side.runs] == [0, 2]
    with pytest.raises(ConfigError, match="named twice"):
        finder.find(["seed 0, 9 epochs+seed 0, 9 epochs"])


def test_the_seeds_of_a_run_are_all_that_differ_from_it_in_nothing_else(finder):
    [side] = finder.find(["seed 1, 9 epochs:seeds"])
    assert sorted(run.settings["seed"] for run in side.runs) == [0, 1, 2]
    assert side.name.startswith("3 runs: ")
    [other] = finder.find(["seed 0, 5 epochs:seeds"])
    assert len(other.runs) == 1
    [same] = finder.find([f"seeds-{side.runs[0].seed_group[:10]}"])
    assert same.runs == side.runs
    with pytest.raises(ConfigError, match="belongs to the group"):
        finder.find(["seeds-0000000"])


def test_a_registered_version_is_asked_for_and_is_the_run_of_this_workspace_if_it_is_here(finder, place):
    assert one(finder, "champion").name == "task/9"
    run = one(finder, "seed 0, 9 epochs")
    local = RunFinder(place.workspace, "", lambda word: NamedRun(run.key, "task/1", "vanilla", 1, None))
    assert one(local, "champion").name == run.name


def test_a_name_that_several_runs_have_is_refused_with_their_keys(finder, place):
    for folder in place.workspace.stage("train").iterdir():
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["result"]["run_name"] = "the same"
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"names 4 runs; say which by its key: \w+-\d, \w+-\d"):
        finder.find(["the same"])


def test_an_unknown_name_comes_with_the_nearest_known_one_and_what_is_unfinished_with_why(finder, place):
    with pytest.raises(ConfigError, match="did you mean seed 1, 9 epochs"):
        finder.find(["seed 1, 9 epoch"])
    delivery_state.write_run(place.workspace, RunRecord("s0-00003", "trial 003"))
    for word in ("trial 003", "s0-00003"):
        with pytest.raises(ConfigError, match="has nothing to compare: it is no whole training and no trial"):
            finder.find([word])


def test_without_trainings_it_says_so_and_what_is_damaged_is_passed_over(finder, place, context, tmp_path):
    folders = sorted(place.workspace.stage("train").iterdir())
    for folder in folders:
        (folder / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="nothing was trained in this workspace yet"):
        finder.find(["anything"])


def test_settings_of_data_that_are_gone_are_their_fingerprint(finder, place):
    manifest = json.loads((next(iter(place.workspace.stage("train").iterdir())) / "manifest.json").read_bytes())
    (place.workspace.stage("prepare") / manifest["inputs"]["prepare"] / "manifest.json").unlink()
    run = one(finder, "seed 1, 9 epochs")
    assert (run.settings["prepare"], run.prepared) == (manifest["inputs"]["prepare"], None)


def test_a_run_without_predictions_says_how_to_make_them(finder):
    with pytest.raises(ConfigError, match=r"has no predictions of the test images; `seqpipe run evaluate`"):
        one(finder, "seed 1, 9 epochs").load_predictions()
