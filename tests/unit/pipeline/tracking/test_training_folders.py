"""A run's record can be rebuilt from the stage folders of its training."""

import json
from dataclasses import asdict

import pytest

from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import JournalRecord
from pipeline.tracking.training_folders import RUN_FILE, find_run, is_finished, run_keys
from pipeline.workspace.manifests import MANIFEST, Manifest
from pipeline.workspace.paths import Workspace

KEY = "f00-3"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def training(workspace, ending="", key=KEY, journal=b"12345"):
    folder = workspace.stage("train") / f"f00{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).write_text(json.dumps({"key": key, "name": "small"}))
    (folder / "journal.jsonl").write_bytes(journal)
    if not ending:
        (folder / MANIFEST).write_text(json.dumps(asdict(Manifest("train", 1, "f00", {}, {}, {}))))
    return folder


def evaluation(workspace, name, training="f00", manifest=None):
    folder = workspace.stage("evaluate") / name
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_bytes(b"123")
    content = json.dumps(asdict(Manifest("evaluate", 1, name, {}, {"train": training}, {})))
    (folder / MANIFEST).write_text(content if manifest is None else manifest)


def test_a_whole_training_has_its_journal_and_those_of_its_evaluations(workspace):
    training(workspace)
    evaluation(workspace, "e1")
    evaluation(workspace, "e2", training="other")
    evaluation(workspace, "e3", manifest="{")
    record = delivery_state.read_run(workspace, KEY)
    assert (record.name, record.status, record.lock) == ("small", "FINISHED", "train-f00")
    assert record.journals == {
        "train/f00": JournalRecord(".seqpipe/stages/train/f00", 5),
        "evaluate/e1": JournalRecord(".seqpipe/stages/evaluate/e1", 3),
    }


def test_an_unfinished_training_has_what_its_newest_readable_checkpoint_covers(workspace):
    folder = training(workspace, ".partial")
    assert find_run(workspace, KEY) is None, "nothing of it is durable"
    for step, content in ((1, '{"journal_offset": 2}'), (2, '{"journal_offset": 4}'), (3, "{")):
        (folder / f"step-0000000{step}.json").write_text(content)
    record = delivery_state.read_run(workspace, KEY)
    assert (record.status, record.journals) == (
        "RUNNING", {"train/f00": JournalRecord(".seqpipe/stages/train/f00.partial", 4)},
    )  # fmt: skip


def test_another_attempt_at_the_same_training_is_another_run(workspace):
    training(workspace, key="f00-4")
    assert find_run(workspace, KEY) is None
    assert run_keys(workspace) == {"f00-4"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": 1}'])
def test_a_folder_that_does_not_name_its_run_has_none(workspace, content):
    (training(workspace) / RUN_FILE).write_text(content)
    assert run_keys(workspace) == set()
    assert find_run(workspace, KEY) is None


def test_a_run_is_finished_when_its_folder_is_whole(workspace):
    folder = training(workspace)
    assert is_finished(workspace, KEY)
    assert not is_finished(workspace, "f00-4")
    (folder / MANIFEST).unlink()
    assert not is_finished(workspace, KEY)
