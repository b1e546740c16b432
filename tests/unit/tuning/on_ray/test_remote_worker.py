"""The remote worker with a real home folder and a real capped child, which counts."""

import pickle
import threading
import time

import pytest
from fake_ray import NODE, Handle
from toy_remote import Count, Shows, Stubborn

from tuning.cluster.node_folder import VARIABLE, NodeFolder
from tuning.memory_pressure import MemoryReading
from tuning.on_ray import homeward, remote_stay, remote_worker
from tuning.on_ray.home_folder import HomeFolder
from tuning.on_ray.remote_stay import NODE_LEAVES
from tuning.on_ray.remote_worker import Job, run_job
from tuning.on_ray.shared_files import SharedFiles
from tuning.promises import Promises
from tuning.remote_work import Fetched
from tuning.trial import PickledObjective
from tuning.trial_room import TrialRoom

CACHE = {}


def cache_folder():
    return CACHE["folder"]


class Here:
    """The node and home: both on this machine."""

    def __init__(self, folder, ray):
        self.folder = folder / "home"
        self.folder.mkdir()
        self.shared = folder / "shared"
        self.shared.mkdir()
        (self.shared / "scale").write_text("3")
        self.cache = CACHE["folder"] = folder / "cache"
        self.node = NodeFolder(folder / "node")
        self.node.create()
        self.actor = Handle(HomeFolder(str(self.folder), str(self.shared)))
        self.messages = []
        self.ray = ray

    def run(self, function, cap_mb=150.0, drivers_node="another", grace_s=10.0, shared=True):
        files = SharedFiles.of([self.shared / "scale"] if shared else [], cache_folder)
        job = Job(PickledObjective.of(function, None), "B", files, drivers_node, cap_mb, 10, grace_s)
        end = run_job(job, self.actor)
        self.messages += [pickle.loads(body) for body in self.actor.target.taken().messages]  # noqa: S301
        return end

    def once_home(self, name, then, *arguments):
        """Call something as soon as a file has come home."""

        def wait():
            until = time.monotonic() + 30
            while not (self.folder / name).exists() and time.monotonic() < until:
                time.sleep(0.01)
            then(*arguments)

        threading.Thread(target=wait, daemon=True).start()

    def files(self):
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def here(tmp_path, ray, monkeypatch):
    for module in (homeward, remote_stay, remote_worker):
        monkeypatch.setattr(module, "ray", ray)
    monkeypatch.setattr(remote_stay, "ASK_S", 0.02)
    monkeypatch.setattr(remote_stay, "LOOK_S", 0.02)
    promises = Promises(tmp_path / "promises")
    monkeypatch.setattr(
        remote_worker,
        "TrialRoom",
        lambda cap, reserve: TrialRoom(cap, reserve, read=lambda: MemoryReading(8000, 8000), promises=promises),
    )
    made = Here(tmp_path, ray)
    monkeypatch.setenv(VARIABLE, str(made.node.path))
    return made


def value(end):
    assert end.capped.outcome == "completed", end
    return pickle.loads(end.capped.value)  # noqa: S301


def test_work_begins_with_the_files_from_home_and_brings_its_own_there(here):
    (here.folder / "number.json").write_text("5")
    (here.folder / "weights-5").write_bytes(b"5")
    assert value(here.run(Count(7, 0.0))) == ("done", 7, "3")
    assert here.files() == {"number.json", "weights-7", "log.txt"}
    assert (here.folder / "log.txt").read_text() == "6\n7\n"
    assert here.messages[-1][0] == "end"
    assert list(here.cache.glob("remote-*")) == []


def test_what_it_reads_is_fetched_once_and_that_is_said(here):
    here.run(Count(1, 0.0))
    assert Fetched(1, 1) in here.messages
    here.messages.clear()
    assert value(here.run(Count(2, 0.0))) == ("done", 2, "3")
    assert not any(isinstance(message, Fetched) for message in here.messages)


def test_beside_the_driver_it_is_read_where_it_is(here):
    assert value(here.run(Count(1, 0.0), drivers_node=NODE)) == ("done", 1, "3")
    assert not (here.cache / "inputs").exists()


def test_work_that_reads_nothing_fetches_nothing(here):
    assert value(here.run(Count(1, 0.0), shared=False)) == ("done", 1, "")


def test_home_s_word_ends_it_with_all_of_its_files_home(here):
    here.once_home("number.json", here.actor.target.ask_to_stop, "enough")
    word, number, _ = value(here.run(Count(1000)))
    assert word == "enough"
    assert (here.folder / "number.json").read_text() == str(number)
    assert here.files() == {"number.json", f"weights-{number}", "log.txt"}


def test_a_node_that_leaves_ends_it_and_sees_what_runs_until_all_is_home(here):
    here.once_home("number.json", here.node.ask_to_leave, "bye")
    end = here.run(Shows(1000))
    assert value(end)[0] == NODE_LEAVES
    assert not end.left_for_room
    assert here.node.trials() == ()
    assert ("seen", ["toy"]) in here.messages


def test_one_that_does_not_leave_is_killed_and_what_was_saved_is_home(here):
    here.once_home("saved", here.actor.target.ask_to_stop, "enough")
    end = here.run(Stubborn(), grace_s=0.3)
    assert end.capped.outcome == "killed"
    assert "saved" in here.files()


def test_a_hog_ends_at_its_cap(here):
    end = here.run(Count(1000, 0.0, "hog"))
    assert (end.capped.outcome, end.cap_mb) == ("memory_cap", 150.0)
    assert "number.json" not in here.files() or int((here.folder / "number.json").read_text()) < 3


def test_a_cap_below_the_imports_is_said_with_what_they_need(here):
    end = here.run(Count(1), cap_mb=5.0)
    assert end.capped is None
    assert end.floor_mb > 5
    assert end.cap_mb == 5.0


def test_an_error_of_the_function_is_passed_on(here):
    end = here.run(Count(5, 0.0, "raise"))
    assert (end.capped.outcome, end.capped.error) == ("failed", "RuntimeError: no such thing")


def test_a_full_disk_at_home_ends_it(here, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(here.actor.target, "write", refuse)
    end = here.run(Count(1000))
    assert end.not_home.errno == 28


def test_work_that_is_to_leave_before_it_begins_does_not_begin(here):
    here.actor.target.ask_to_stop("enough")
    time.sleep(0.05)
    end = here.run(Count(3))
    assert end.capped is None or value(end)[1] < 3


def test_without_a_cap_it_may_hold_what_is_free(here, monkeypatch):
    monkeypatch.setattr(remote_worker, "_free_mb", lambda reserve: 333.0)
    end = here.run(Count(1, 0.0), cap_mb=None)
    assert end.cap_mb == end.capped.cap_mb == 333.0


def test_folders_of_killed_workers_are_deleted(here):
    dead = here.cache / "remote-4194303-x"  # above the largest process number
    dead.mkdir(parents=True)
    here.run(Count(1, 0.0))
    assert not dead.exists()
