import pickle
import threading

import pytest
from fake_ray import Handle

from tuning.on_ray import homeward
from tuning.on_ray.home_folder import HomeFolder
from tuning.on_ray.homeward import MessagesHome, SnapshotsHome, newest, stamp_of
from tuning.remote_work import Said


class Slow(HomeFolder):
    """A home that takes nothing in until it may."""

    def __init__(self, folder):
        super().__init__(str(folder))
        self.may, self.is_asked = threading.Event(), threading.Event()
        self.may.set()

    def write(self, name, offset, chunk):
        self.is_asked.set()
        assert self.may.wait(10)
        super().write(name, offset, chunk)

    def post(self, messages):
        self.is_asked.set()
        assert self.may.wait(10)
        super().post(messages)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def home(ray, folder, monkeypatch):
    monkeypatch.setattr(homeward, "ray", ray)
    return Handle(Slow(folder))


@pytest.fixture
def snapshot(tmp_path):
    """Makes snapshots of the files given, which stay in a folder of work as real ones do."""
    work = tmp_path / "work"
    work.mkdir()
    made = []

    def make(**contents):
        for path in work.iterdir():
            if path.name.replace(".", "_") not in contents:
                path.unlink()
        for name, content in contents.items():
            path = work / name.replace("_", ".")
            if not path.exists() or path.read_bytes() != content:
                (work / ".new").write_bytes(content)
                (work / ".new").rename(path)
        to = tmp_path / f"snapshot-{len(made)}"
        to.mkdir()
        for path in work.iterdir():
            (to / path.name).hardlink_to(path)
        made.append(to)
        return to

    return make


def at_home(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_of_passing_messages_in_a_row_the_last_is_sent_and_of_others_each():
    waiting = [
        Said(b"1", passing=True), Said(b"2", passing=True), Said(b"epoch"), Said(b"3", passing=True), Said(b"note"),
        Said(b"4", passing=True),
    ]  # fmt: skip
    assert newest(waiting) == [b"2", b"epoch", b"3", b"note", b"4"]
    assert newest([]) == []


def test_messages_are_home_when_the_context_is_left(home):
    with MessagesHome(home) as messages:
        messages.send(Said(b"1"))
        messages.send_object("two")
    assert home.target.taken().messages == [b"1", pickle.dumps("two")]


def test_messages_that_wait_go_together_while_the_line_is_slow(home):
    home.target.may.clear()
    with MessagesHome(home) as messages:
        messages.send(Said(b"1", passing=True))
        assert home.target.is_asked.wait(10)
        for number in range(2, 50):
            messages.send(Said(str(number).encode(), passing=True))
        home.target.may.set()
    assert home.target.taken().messages == [b"1", b"49"]
    assert home.calls.count("post") == 2


def test_only_files_that_have_changed_are_sent_and_those_that_are_gone_are_deleted(home, folder, snapshot):
    sender = SnapshotsHome(home, {})
    sender.offer(first := snapshot(weights_1=b"one", best=b"b", n_json=b"1"))
    sender.close()
    assert at_home(folder) == {"weights.1": b"one", "best": b"b", "n.json": b"1"}
    assert not first.exists()
    again = SnapshotsHome(home, sender._known)
    home.calls.clear()
    again.offer(snapshot(weights_2=b"two", best=b"b", n_json=b"2"))
    again.close()
    assert at_home(folder) == {"weights.2": b"two", "best": b"b", "n.json": b"2"}
    assert home.calls == ["write", "write", "take_in"], "best has not changed"


def test_a_file_that_grows_is_sent_again_and_an_empty_one_too(home, folder, tmp_path):
    work = tmp_path / "log"
    work.write_bytes(b"")
    sender = SnapshotsHome(home, {})
    for name, content in (("one", b""), ("two", b"12")):
        with work.open("ab") as file:
            file.write(content)
        (tmp_path / name).mkdir()
        (tmp_path / name / "log").hardlink_to(work)
        sender._send(tmp_path / name)
        assert at_home(folder) == {"log": content}
    sender.close()


def test_the_files_that_work_began_with_are_not_sent_back(home, folder, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "weights").write_bytes(b"1")
    sender = SnapshotsHome(home, {"weights": stamp_of(tmp_path / "s" / "weights"), "old": (1, 1, 1)})
    sender.offer(tmp_path / "s")
    sender.close()
    assert home.calls == ["take_in"]


def test_a_snapshot_that_waits_gives_way_to_the_next(home, folder, snapshot):
    home.target.may.clear()
    sender = SnapshotsHome(home, {})
    sender.offer(snapshot(n=b"1"))
    assert home.target.is_asked.wait(10)
    sender.offer(waiting := snapshot(n=b"2"))
    sender.offer(snapshot(n=b"3"))
    assert not waiting.exists()
    home.target.may.set()
    sender.close()
    assert at_home(folder) == {"n": b"3"}
    assert home.calls.count("take_in") == 2


def test_a_large_file_goes_in_chunks(home, folder, snapshot, monkeypatch):
    monkeypatch.setattr(homeward, "CHUNK_BYTES", 4)
    sender = SnapshotsHome(home, {})
    sender.offer(snapshot(n=b"123456789"))
    sender.close()
    assert at_home(folder) == {"n": b"123456789"}
    assert home.calls.count("write") == 3


def test_a_full_disk_at_home_is_kept_for_the_caller_and_frees_what_had_come(home, folder, snapshot, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home.target, "take_in", refuse)
    sender = SnapshotsHome(home, {})
    sender.offer(snapshot(n=b"1"))
    sender.close()
    assert sender.error.errno == 28
    assert at_home(folder) == {}
