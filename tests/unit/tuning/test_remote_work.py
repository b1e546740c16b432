import os
import pickle
import signal
import threading

import pytest

from tuning.cluster.node_record import TrialOnNode
from tuning.remote_work import STOP, WORK, RemoteWork, Said, SnapshotReady, plain_files, run_work
from tuning.trial import Began, PickledObjective


@pytest.fixture
def sent():
    return []


@pytest.fixture
def work(tmp_path, sent):
    (tmp_path / WORK).mkdir()
    return RemoteWork(tmp_path, sent.append, None, 500)


def test_what_is_brought_home_is_the_folder_as_it_is_now(work, sent):
    (work.folder / "weights").write_bytes(b"one")
    work.bring_home()
    (work.folder / "new").write_bytes(b"two")
    (work.folder / "new").rename(work.folder / "weights")
    work.bring_home()
    first, second = (message.folder for message in sent)
    assert (first / "weights").read_bytes() == b"one"
    assert (second / "weights").read_bytes() == b"two"
    assert {type(message) for message in sent} == {SnapshotReady}


def test_a_snapshot_takes_no_space_where_files_can_have_two_names(work, sent):
    (work.folder / "weights").write_bytes(b"one")
    work.bring_home()
    assert (sent[0].folder / "weights").stat().st_ino == (work.folder / "weights").stat().st_ino


def test_where_they_cannot_a_snapshot_is_a_copy(work, sent, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (work.folder / "weights").write_bytes(b"one")
    work.bring_home()
    assert (sent[0].folder / "weights").read_bytes() == b"one"


def test_files_that_describe_others_come_last_and_hidden_ones_and_folders_not_at_all(tmp_path):
    for name in ("z.bin", "a.json", "b.json", "a.bin", ".half"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    assert [path.name for path in plain_files(tmp_path)] == ["a.bin", "z.bin", "a.json", "b.json"]


def test_messages_are_pickled_there_and_say_whether_the_next_one_replaces_them(work, sent):
    work.send({"epoch": 1})
    work.send("step 3", passing=True)
    assert [(pickle.loads(said.body), said.passing) for said in sent] == [({"epoch": 1}, False), ("step 3", True)]  # noqa: S301


def test_where_the_work_stands_is_shown_to_its_node(work, sent):
    work.show(TrialOnNode("s", 0, 1, 2))
    assert sent == [TrialOnNode("s", 0, 1, 2)]


def test_the_reason_to_stop_is_home_s_word(work, tmp_path):
    (tmp_path / STOP).write_text("time is up")
    assert work.stop_reason is None, "nobody has asked yet"
    work.ask_to_stop()
    assert work.stop_reason == "time is up"


def answer(work):
    os.kill(os.getpid(), signal.SIGTERM)
    return work.stop_reason, work.cap_mb, work.shared_files


def test_the_function_is_asked_to_stop_by_a_signal_and_its_value_is_pickled(tmp_path, sent):
    (tmp_path / WORK).mkdir()
    (tmp_path / STOP).write_text("enough")
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    packed = PickledObjective(pickle.dumps(answer), pickle.dumps(None), ())
    try:
        value = run_work(sent.append, packed, tmp_path, tmp_path / "shared", 500)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert pickle.loads(value) == ("enough", 500, tmp_path / "shared")  # noqa: S301
    assert [said for said in sent if not isinstance(said, Said)] == [Began(os.getpid())]
