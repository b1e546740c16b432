import json
import os
import shutil

import pytest
from ledgers import end, write_ledger

from pipeline.config.resolution import resolve
from pipeline.maintenance import gc, retention
from pipeline.search import store
from pipeline.search.store import SearchFolder
from pipeline.stages.results import TrainedModel
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import JournalRecord, RunRecord
from pipeline.tracking.run_list import REPORT_KEY
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, StageFolder, read_manifest, remove_folder
from tuning.space import Space

SPACE = Space.parse({"train.learning_rate": {"uniform": [0.001, 0.01]}})


def decisions(house, registered=frozenset(), *, told=True):
    if told:  # as if MLflow had been told of every run
        shutil.rmtree(house.workspace.hidden / "runs", ignore_errors=True)
    return retention.decide(house.workspace, house.context.mlflow.address, lambda: registered)


def going(house, registered=frozenset()):
    return sorted(one.what for one in decisions(house, registered) if one.removable)


def age(house):
    """Make everything that is there older."""
    for path in house.workspace.hidden.glob(f"stages/*/*/{MANIFEST}"):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"created": "2000-01-01T00:00:00Z"}))


def predicted(house, outcome):
    folder = house.workspace.predictions / outcome.results[TrainedModel].run_key
    folder.mkdir(parents=True)
    (folder / "predictions.npz").write_bytes(b"x")


@pytest.fixture
def two_trainings(house):
    """An older training with its report and predictions, and a newer one."""
    for epochs in (2, 3):
        age(house)
        predicted(house, house.run(f"train.epochs={epochs}", through="evaluate"))
    return house


def test_the_only_run_of_a_workspace_stays_whole(house):
    predicted(house, house.run())
    assert going(house) == []


def test_an_older_training_goes_with_its_report_and_predictions(two_trainings):
    assert going(two_trainings) == ["evaluate", "predictions", "train"]


def test_a_training_that_a_registration_here_was_made_from_stays(two_trainings):
    two_trainings.run("train.epochs=2", through="register")
    age(two_trainings)
    two_trainings.run("train.epochs=4", through="train")
    assert going(two_trainings) == ["evaluate", "predictions", "train"]  # of the one with 3 epochs
    stays = [one for one in decisions(two_trainings) if one.what == "train" and not one.removable]
    assert any("a registered version was made from it" in one.why for one in stays)


def test_a_training_that_only_the_registry_knows_of_stays(two_trainings):
    (older,) = [one for one in decisions(two_trainings) if one.removable and one.what == "predictions"]
    assert going(two_trainings, {older.path.name}) == []


def test_nothing_that_may_be_registered_goes_while_the_registry_does_not_answer(two_trainings):
    assert going(two_trainings, None) == []


def test_a_report_that_mlflow_was_not_told_of_stays(two_trainings):
    stays = {one.why.partition("; ")[2] for one in decisions(two_trainings, told=False) if one.what == "evaluate"}
    assert any("MLflow does not have all of it yet" in why for why in stays)


def test_an_older_report_on_the_same_training_goes(house):
    house.run(through="evaluate")
    age(house)
    house.run("evaluate.mistakes=5", through="evaluate")
    assert going(house) == ["evaluate"]


def test_prepared_data_of_no_training_that_stays_goes(house):
    house.run(through="prepare")
    age(house)
    house.run("data.classes=[cat,frog]", through="train")
    assert going(house) == ["prepare"]


def test_unfinished_training_stays_with_its_data_and_what_made_no_step_goes(house):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run("data.classes=[cat,frog]")
    (folder,) = house.workspace.stage("train").iterdir()
    age(house)
    house.run(through="prepare")
    assert going(house) == ["prepare", "train"]
    (folder / "config.yaml").write_text("data: {source: synthetic, classes: [cat, frog]}")
    (folder / "step-00000040.json").write_text('{"progress": {"epoch": 2, "step": 40}}')
    assert going(house) == []
    (folder / "config.yaml").write_text("nonsense: 1")
    assert going(house) == [], "which data it needs cannot be told"


def searched(house, *sets, trials=1, created="2026-01-01 00:00:00"):
    """A search with one trial done."""
    place = SearchFolder.of(house.workspace, resolve("vanilla", sets=["data.source=synthetic", *sets]), SPACE)
    place.create()
    path = place.path / "search.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"created": created}))
    write_ledger(place.path, [end("completed", 0.5)], trials)
    return place


def test_a_search_goes_when_a_newer_one_of_the_model_on_the_data_is_finished(house):
    older = searched(house, "train.epochs=2")
    assert going(house) == []
    newer = searched(house, "train.epochs=3", trials=2, created="2026-02-01 00:00:00")
    assert going(house) == [], "the newer one is not finished"
    searched(house, "train.epochs=4", "data.classes=[cat,frog]", created="2026-03-01 00:00:00")
    assert going(house) == [], "of other data"
    searched(house, "train.epochs=5", created="2026-01-15 00:00:00")
    assert [one.path for one in decisions(house) if one.removable] == [older.path]
    assert newer.path.is_dir()


def test_a_search_that_mlflow_was_not_told_of_or_that_is_in_use_stays(house, monkeypatch):
    place = searched(house)
    name, lock = place.fingerprint, place.lock
    monkeypatch.setattr(store, "VERSION", 99)
    assert going(house) == ["search"], "no version but the other one goes on with it"
    journal = f"search/{name}/00003"
    delivery_state.write_run(house.workspace, RunRecord("k", "trial 003", journals={journal: JournalRecord("x", 9)}))
    (decision,) = decisions(house, told=False)
    assert "MLflow does not have all of it yet" in decision.why
    assert going(house) == ["search"]
    with exclusive(lock, print, what="it"):
        assert going(house) == []


def test_the_data_of_an_unfinished_search_stays(house):
    house.run(through="prepare")
    age(house)
    place = searched(house, trials=2)
    house.run("data.classes=[cat,frog]", through="train")
    assert going(house) == []
    place.discard()
    assert going(house) == ["prepare"]


def test_what_is_in_use_stays_and_is_not_removed_even_if_that_came_after_the_decision(two_trainings):
    found = decisions(two_trainings)
    (training,) = [one for one in found if one.removable and one.what == "train"]
    folder = StageFolder(two_trainings.workspace, "train", training.path.name)
    with exclusive(folder.lock_path, print, what="it"):
        assert "train" not in going(two_trainings)
        assert "train" not in [one.what for one in gc.remove(found)]
    assert training.path.is_dir()
    assert [one.what for one in gc.remove(found) if one.path == training.path] == ["train"]
    assert not training.path.exists()


def test_a_removal_that_is_cut_short_leaves_nothing_that_looks_whole(house, monkeypatch):
    house.run(through="prepare")
    folder = house.folder("prepare")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(folder)
    assert (folder / "work").exists()
    assert read_manifest(folder) is None


def test_what_a_running_evaluation_or_registration_may_read_stays(two_trainings):
    assert "train" in going(two_trainings)
    for stage in ("evaluate", "register"):
        working = StageFolder(two_trainings.workspace, stage, "f00d")
        with exclusive(working.lock_path, print, what="it"):
            working.begin()
            why = {one.what: one.why for one in decisions(two_trainings) if one.what in ("prepare", "train")}
            assert all(text.endswith("a running command may read it") for text in why.values()), why
        assert "train" in going(two_trainings)
        working.discard()


def test_a_report_goes_with_its_training(two_trainings):
    shutil.rmtree(next(one.path for one in decisions(two_trainings) if one.what == "train" and not one.removable))
    whys = [
        one.why.partition("; ")[2] for one in decisions(two_trainings) if one.what == "evaluate" and one.removable
    ]
    assert len(whys) == 1
    assert whys[0].endswith("what it was made from (train) goes or is gone")


def test_checkpoints_of_a_whole_training_go_and_those_of_an_unfinished_one_stay(house):
    house.run(through="train")
    whole = house.folder("train")
    unfinished = whole.with_name("f00d.partial")
    unfinished.mkdir()
    for folder in (whole, unfinished):
        (folder / "step-00000040.safetensors").write_bytes(b"1234")
    torn = [one for one in decisions(house) if one.what == "torn file"]
    assert [(one.path, one.bytes, one.removable) for one in torn] == [(whole / "step-00000040.safetensors", 4, True)]


def test_temporary_files_go_when_they_are_old_and_no_command_writes_them(house):
    house.run(through="prepare")
    working = StageFolder(house.workspace, "train", "f00d")
    old = [
        house.workspace.root / ".mlflow.db.1.tmp",
        house.folder("prepare") / ".a.1.tmp",
        working.begin() / ".b.1.tmp",
    ]
    for path in old:
        path.touch()
        os.utime(path, (0, 0))
    (house.workspace.root / ".new.2.tmp").touch()

    def torn():
        return {one.path for one in decisions(house) if one.what == "torn file" and one.removable}

    assert torn() == set(old)
    with exclusive(working.lock_path, print, what="it"):
        assert torn() == set(old[:2])


def test_a_report_goes_once_mlflow_has_it(house):
    key = f"{REPORT_KEY}0a1b"
    folder = house.workspace.hidden / "reports" / key
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("the page")
    waiting = RunRecord(key, "report on 1 training", "FINISHED", {key: JournalRecord("reports", 10)})
    delivery_state.write_run(house.workspace, waiting)
    [one] = decisions(house, told=False)
    assert (one.what, one.removable, one.why) == ("report", False, "MLflow does not have it yet")
    with exclusive(house.workspace.lock(key), print, what="the report"):
        assert going(house) == []
    assert going(house) == ["report"]
