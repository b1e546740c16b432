import os
import subprocess
import sys

import pytest

from tuning.cluster.node_folder import VARIABLE, NodeFolder
from tuning.cluster.node_record import TrialOnNode


@pytest.fixture
def folder(tmp_path):
    folder = NodeFolder(tmp_path / "node")
    folder.create()
    return folder


def test_a_process_finds_the_folder_of_its_node_by_the_environment(folder, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert NodeFolder.of_environment() is None
    monkeypatch.setenv(VARIABLE, str(folder.path))
    found = NodeFolder.of_environment()
    assert found is not None
    assert found.path == folder.path


def test_the_folder_is_this_user_s_alone(folder):
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_whoever_looks_learns_that_and_why_trials_are_to_leave(folder):
    other = NodeFolder(folder.path)
    assert other.leaving() is None
    folder.ask_to_leave("Ctrl-C")
    assert other.leaving() == "Ctrl-C"
    folder.call_off()
    assert other.leaving() is None


def test_a_folder_that_is_made_again_asks_nobody_to_leave(folder):
    folder.ask_to_leave("the cable is out")
    folder.create()
    assert folder.leaving() is None


def test_a_node_without_a_folder_has_no_trials_and_asks_nobody_to_leave(tmp_path):
    missing = NodeFolder(tmp_path / "gone")
    assert missing.leaving() is None
    assert missing.trials() == ()


def test_trials_are_seen_changed_and_removed(folder):
    first, second = NodeFolder(folder.path), NodeFolder(folder.path)
    first.write_trial(TrialOnNode("s", 7, 1, 5, None, 500, 900))
    second.write_trial(TrialOnNode("s", 2, 0, 5))
    assert [trial.row for trial in folder.trials()] == [2, 7]
    first.write_trial(TrialOnNode("s", 7, 2, 5, 0.25))
    assert folder.trials()[1] == TrialOnNode("s", 7, 2, 5, 0.25)
    first.write_trial(TrialOnNode("s", 7))
    assert folder.trials()[1] == TrialOnNode("s", 7), "shorter than before"
    first.remove_trial()
    assert [trial.row for trial in folder.trials()] == [2]
    second.remove_trial()
    second.remove_trial()
    assert folder.trials() == ()
    assert list(folder.path.glob("trial-*")) == []


def test_the_trial_of_a_dead_process_is_removed(folder):
    write = (
        "import os, signal; from pathlib import Path\n"
        "from tuning.cluster.node_folder import NodeFolder; from tuning.cluster.node_record import TrialOnNode\n"
        f"NodeFolder(Path({str(folder.path)!r})).write_trial(TrialOnNode('s', 1))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", write], check=False)
    assert len(list(folder.path.glob("trial-*"))) == 1
    assert folder.trials() == ()
    assert list(folder.path.glob("trial-*")) == []


def test_a_half_written_trial_is_left_out_and_kept(folder):
    writer = NodeFolder(folder.path)
    writer.write_trial(TrialOnNode("s", 1))
    (path,) = folder.path.glob("trial-*")
    whole = path.read_bytes()
    with path.open("r+b") as file:
        os.truncate(file.fileno(), 5)
    assert folder.trials() == ()
    with path.open("r+b") as file:
        file.write(whole)
    assert [trial.row for trial in folder.trials()] == [1]


def test_to_ask_needs_no_room_on_a_disk_that_may_be_full(folder):
    def held():
        return sorted((path.stat().st_ino, path.stat().st_size) for path in folder.path.iterdir())

    before = held()
    folder.ask_to_leave("its disk is full")
    assert held() == before
    folder.ask_to_leave("the cluster is taken down, " + "ä" * 1000)
    assert held() == before
    assert folder.leaving().startswith("the cluster is taken down, ää")
    folder.call_off()
    assert held() == before
    assert folder.leaving() is None
