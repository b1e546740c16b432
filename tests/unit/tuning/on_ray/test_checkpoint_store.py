import pytest

from tuning.on_ray.checkpoint_store import CheckpointStore, OutdatedAttemptError


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(str(tmp_path / "checkpoints"))


def send(store, attempt, text, row=3):
    version = store.open(row, attempt)
    store.write(row, attempt, version, "work/model/weights", 0, text[:4])
    store.write(row, attempt, version, "work/model/weights", 4, text[4:])
    store.write(row, attempt, version, "reports.json", 0, b"")
    store.commit(row, attempt, version)
    return version


def test_the_newest_whole_checkpoint_is_what_is_fetched(store):
    attempt = store.begin_attempt(3)
    assert store.newest(3, attempt) is None
    send(store, attempt, b"first one")
    version = send(store, attempt, b"second one")
    assert store.newest(3, attempt) == (version, [("reports.json", 0), ("work/model/weights", 10)])
    assert store.read(3, attempt, version, "work/model/weights", 0) == b"second one"
    assert store.read(3, attempt, version, "work/model/weights", 8) == b"ne"


def test_only_the_newest_takes_space(store, tmp_path):
    attempt = store.begin_attempt(3)
    for text in (b"first one", b"second one", b"third one"):
        send(store, attempt, text)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "row-00003").iterdir()) == ["000003", "attempt"]


def test_a_checkpoint_that_is_not_whole_is_never_seen(store, tmp_path):
    attempt = store.begin_attempt(3)
    send(store, attempt, b"whole one")
    version = store.open(3, attempt)
    store.write(3, attempt, version, "work/model/weights", 0, b"half")
    again = CheckpointStore(str(tmp_path / "checkpoints"))  # after a crash
    attempt = again.begin_attempt(3)
    assert again.read(3, attempt, again.newest(3, attempt)[0], "work/model/weights", 0) == b"whole one"
    assert list(tmp_path.rglob("*.partial"))
    send(again, attempt, b"another one")
    assert not list(tmp_path.rglob("*.partial"))


def test_an_attempt_that_woke_up_too_late_may_not_write(store, tmp_path):
    sleeper = store.begin_attempt(3)
    version = store.open(3, sleeper)
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    attempt = store.begin_attempt(3)
    for late in (
        lambda: store.newest(3, sleeper),
        lambda: store.read(3, sleeper, version, "x", 0),
        lambda: store.open(3, sleeper),
        lambda: store.write(3, sleeper, version, "x", 0, b"old"),
        lambda: store.commit(3, sleeper, version),
    ):
        with pytest.raises(OutdatedAttemptError):
            late()
    send(store, attempt, b"of the new")
    assert store.read(3, attempt, store.newest(3, attempt)[0], "work/model/weights", 0) == b"of the new"


def test_one_that_woke_up_too_late_does_not_clear_away_what_the_newer_one_sends(store):
    sleeper = store.begin_attempt(3)
    version = store.open(3, sleeper)
    store.write(3, sleeper, version, "weights", 0, b"old")
    attempt = store.begin_attempt(3)
    assert store.open(3, attempt) == version
    store.write(3, attempt, version, "weights", 0, b"the ")
    with pytest.raises(OutdatedAttemptError):
        store.abandon(3, sleeper, version)  # its next chunk was refused
    store.write(3, attempt, version, "weights", 4, b"new")
    store.commit(3, attempt, version)
    assert store.read(3, attempt, version, "weights", 0) == b"the new"


def test_attempts_are_numbered_by_whoever_has_the_disk(store, tmp_path):
    beside = CheckpointStore(str(tmp_path / "checkpoints"))  # the driver's
    first = beside.begin_attempt(3)
    assert store.order(3, first) == "stay"
    second = beside.begin_attempt(3)
    assert second > first
    assert (store.order(3, first), store.order(3, second)) == ("end", "stay")


def test_a_trial_is_told_to_leave_with_the_search_and_to_end_if_another_has_its_row(store):
    attempt = store.begin_attempt(3)
    store.ask_to_stop()
    assert (store.order(3, attempt), store.stop_asked()) == ("leave", True)
    store.drop(3)
    assert store.order(3, attempt) == "end", "its row has ended"


def test_what_goes_to_and_comes_from_other_nodes_is_counted(store, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "images").write_bytes(b"123456")
    store = CheckpointStore(str(tmp_path / "checkpoints"), str(tmp_path / "shared"))
    attempt = store.begin_attempt(3)
    send(store, attempt, b"of the driver's node")
    version = store.open(3, attempt)
    store.write(3, attempt, version, "weights", 0, b"1234", "two")
    store.commit(3, attempt, version)
    store.read(3, attempt, version, "weights", 0)
    for node in ("two", "three"):
        store.read_shared("images", 2, node)
    store.read(3, attempt, version, "weights", 1, "three")
    assert store.sent() == {"two": [4, 0, 4], "three": [4, 3, 0]}


def test_whether_there_are_other_nodes_is_what_was_said_last(store):
    assert not store.has_other_nodes()
    store.nodes_are(True)
    assert store.has_other_nodes()
    store.nodes_are(False)
    assert not store.has_other_nodes()


def test_what_is_asked_twice_is_done_once(store):
    attempt = store.begin_attempt(3)
    version = store.open(3, attempt)
    assert store.open(3, attempt) == version
    for _ in range(2):
        store.write(3, attempt, version, "file", 0, b"text")
    store.commit(3, attempt, version)
    store.commit(3, attempt, version)
    assert store.newest(3, attempt) == (version, [("file", 4)])


def test_dropping_a_row_frees_its_space_and_shuts_it(store):
    attempt = store.begin_attempt(3)
    send(store, attempt, b"some bytes")
    other = store.begin_attempt(4)
    send(store, other, b"of another", row=4)
    assert store.drop(3) == 10
    with pytest.raises(OutdatedAttemptError):
        store.open(3, attempt)
    assert store.newest(3, store.begin_attempt(3)) is None
    assert store.newest(4, other) is not None
    assert store.drop(3) == 0
    assert store.drop(99) == 0


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_one_before(store, monkeypatch):
    attempt = store.begin_attempt(3)
    first = send(store, attempt, b"first one")
    version = store.open(3, attempt)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    store.write(3, attempt, version, "file", 0, b"text")
    with pytest.raises(OSError, match="No space"):
        store.commit(3, attempt, version)
    monkeypatch.undo()
    store.abandon(3, attempt, version)
    assert store.newest(3, attempt)[0] == first
    assert send(store, attempt, b"later one") == version
