import json

import pytest

from pipeline.config.keys import to_yaml
from pipeline.maintenance.inventory import stage_folders
from pipeline.stages.results import TrainedModel
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, StageFolder


def found(house) -> list[tuple[str, str]]:
    return [(one.stage.name, one.state) for one in stage_folders(house.workspace)]


def age(house) -> None:
    """Make everything that is there a day older."""
    for path in house.workspace.hidden.glob(f"stages/*/*/{MANIFEST}"):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"created": "2000-01-01T00:00:00Z"}))


def test_an_empty_workspace_holds_nothing_and_asking_makes_nothing(house):
    assert found(house) == []
    assert list(house.workspace.root.iterdir()) == []


def test_every_stage_of_one_run_is_current_and_says_what_it_holds(house):
    house.run()
    held = stage_folders(house.workspace)
    assert [(one.stage.name, one.state) for one in held] == [
        ("prepare", "current"), ("train", "current"), ("evaluate", "current"), ("register", "current"),
    ]  # fmt: skip
    texts = [one.holds.partition("; ")[2] for one in held]
    assert texts == [
        "synthetic, 4 classes, 36 images",
        "vanilla, 9 epochs, validation accuracy 50.00%",
        "test accuracy 50.00%",
        "m version 1",
    ]
    assert all(one.bytes >= sum(file.stat().st_size for file in one.folder.iterdir()) > 0 for one in held)
    before = held[0].bytes
    (held[0].folder / "plots").mkdir()
    (held[0].folder / "plots" / "a.png").write_bytes(b"12345")
    assert stage_folders(house.workspace)[0].bytes == before + 5


def test_what_a_folder_was_or_is_being_made_from_is_known_from_its_manifest_or_its_config(house):
    outcome = house.run(through="train")
    [prepared, trained] = stage_folders(house.workspace)
    assert (prepared.inputs, prepared.run_key) == ({}, None)
    assert trained.inputs == {"prepare": prepared.fingerprint}
    assert trained.run_key == outcome.results[TrainedModel].run_key
    working = StageFolder(house.workspace, "train", "f00d").begin()
    [unfinished] = [one for one in stage_folders(house.workspace) if one.folder == working]
    assert (unfinished.inputs, unfinished.run_key) == (None, None)
    (working / "config.yaml").write_text(to_yaml(outcome.config))
    assert unfinished.inputs == {"prepare": prepared.fingerprint}


def test_an_older_training_of_the_same_model_on_the_same_data_is_superseded(house):
    house.run(through="train")
    age(house)
    house.run("train.epochs=3", through="train")
    held = [one for one in stage_folders(house.workspace) if one.stage.name == "train"]
    assert [one.state for one in held] == ["current", "superseded"]
    assert "3 epochs" in held[0].holds
    assert "9 epochs" in held[1].holds


def test_other_seeds_of_the_newest_training_are_as_new_as_it_is(house):
    house.run("train.epochs=3", through="train")
    house.run("seed=1", through="train")
    age(house)
    house.run("seed=2", through="train")
    held = [one for one in stage_folders(house.workspace) if one.stage.name == "train"]
    assert {str(one.manifest.reads["seed"]): one.state for one in held} == {
        "2": "current", "1": "current", "0": "superseded",
    }  # fmt: skip


def test_trainings_of_another_model_or_on_other_data_supersede_nothing(house):
    house.run(through="train")
    house.run(through="train", model="small")
    house.run("data.classes=[cat,frog]", through="train")
    assert [state for stage, state in found(house) if stage == "train"] == ["current"] * 3


def test_work_that_is_not_finished_is_partial_and_in_use_while_somebody_holds_it(house):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run()
    assert found(house)[-1] == ("train", "partial")
    folder = StageFolder(house.workspace, "train", house.folder("train").name.removesuffix(".partial"))
    (folder.partial / "step-00000040.json").write_text('{"progress": {"epoch": 2, "step": 40}}')
    with exclusive(folder.lock_path, print, what="it"):
        (training,) = [one for one in stage_folders(house.workspace) if one.stage.name == "train"]
    assert (training.state, training.holds) == ("in use", "2 epochs done, step 40")
    assert found(house)[-1] == ("train", "partial")


def test_a_damaged_folder_is_said_to_be_and_hides_no_other(house):
    house.run()
    (house.folder("evaluate") / MANIFEST).write_text("{")
    [damaged] = [one for one in stage_folders(house.workspace) if one.state == "damaged"]
    assert damaged.stage.name == "evaluate"
    assert "damaged manifest" in damaged.holds
    assert len(found(house)) == 4


def test_a_whole_folder_without_its_manifest_is_damaged_and_a_stray_file_is_no_folder(house):
    house.run()
    (house.folder("evaluate") / MANIFEST).unlink()
    (house.workspace.stage("prepare") / ".DS_Store").touch()
    [damaged] = [one for one in stage_folders(house.workspace) if one.state == "damaged"]
    assert damaged.stage.name == "evaluate"
    assert damaged.holds == "its manifest is missing; the next run makes it again"
    assert len(found(house)) == 4


def test_a_file_that_is_gone_while_it_is_counted_counts_nothing(house, monkeypatch):
    house.run(through="prepare")
    (house.folder("prepare") / "big").write_bytes(b"x" * 10_000)
    before = stage_folders(house.workspace)[0].bytes
    path_type = type(house.workspace.root)
    is_file, stat = path_type.is_file, path_type.stat

    def is_gone(path, **rest):
        if path.name == "big":
            raise FileNotFoundError
        return stat(path, **rest)

    monkeypatch.setattr(path_type, "is_file", lambda path, **rest: path.name == "big" or is_file(path, **rest))
    monkeypatch.setattr(path_type, "stat", is_gone)
    assert stage_folders(house.workspace)[0].bytes == before - 10_000
