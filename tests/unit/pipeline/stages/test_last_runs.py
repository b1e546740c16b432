import json

from pipeline.config.resolution import resolve
from pipeline.stages import last_runs
from pipeline.workspace.paths import Workspace


def test_each_models_last_run_is_kept(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.create()
    assert last_runs.read(workspace) == {}
    small, vanilla = resolve("small", sets=["train.epochs=2"]), resolve("vanilla")
    last_runs.write(workspace, [resolve("small"), vanilla])
    last_runs.write(workspace, [small])
    assert last_runs.read(workspace) == {"small": [small], "vanilla": [vanilla]}


def test_of_several_seeds_each_is_kept(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.create()
    seeds = [resolve("small", flags={"seed": seed}) for seed in (0, 3)]
    last_runs.write(workspace, [*seeds, resolve("vanilla")])
    assert last_runs.read(workspace) == {"small": seeds, "vanilla": [resolve("vanilla")]}
    last_runs.write(workspace, seeds[1:])
    assert last_runs.read(workspace)["small"] == seeds[1:]


def test_the_same_settings_again_write_nothing(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.create()
    last_runs.write(workspace, [resolve()])
    before = (workspace.hidden / last_runs.NAME).stat()  # an atomic write would make another file
    last_runs.write(workspace, [resolve()])
    after = (workspace.hidden / last_runs.NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_cannot_be_read_is_as_if_there_were_none(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.create()
    huge = [resolve().model_dump(mode="json"), {}]
    for content in (
        "{",
        "[]",
        json.dumps({"small": huge, "vanilla": []}),
        json.dumps({"small": {}, "huge": resolve().model_dump(mode="json")}),
    ):
        (workspace.hidden / last_runs.NAME).write_text(content)
        assert last_runs.read(workspace) == {}


def test_what_differs_from_the_defaults_is_told_as_it_is_set():
    config = resolve(sets=["train.epochs=2", "data.classes=[cat,dog]", "train.clip_norm=null"])
    told = last_runs.changes(config)
    assert told == ["data.classes=[cat,dog]", "train.epochs=2", "train.clip_norm=null"]
    assert resolve(sets=told) == config
    assert last_runs.changes(resolve()) == []


def test_a_recipe_is_told_by_its_name_and_what_differs_from_it():
    config = resolve(sets=["recipe=best", "data.classes=all", "train.batch_size=64"])
    told = last_runs.changes(config)
    assert told == ["recipe=best", "data.classes=all", "train.batch_size=64"]
    assert resolve(sets=told) == config
