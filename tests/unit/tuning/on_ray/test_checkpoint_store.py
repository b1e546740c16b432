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
    assert store.newest(3) is None
    send(store, attempt, b"first one")
    version = send(store, attempt, b"second one")
    assert store.newest(3) == (version, [("reports.json", 0), ("work/model/weights", 10)])
    assert store.read(3, version, "work/model/weights", 0) == b"second one"
    assert store.read(3, version, "work/model/weights", 8) == b"ne"


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
    again.begin_attempt(3)
    assert again.read(3, again.newest(3)[0], "work/model/weights", 0) == b"whole one"
    assert not list(tmp_path.rglob("*.partial"))


def test_an_attempt_that_woke_up_too_late_may_not_write(store, tmp_path):
    sleeper = store.begin_attempt(3)
    version = store.open(3, sleeper)
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    send(store, store.begin_attempt(3), b"of the new")
    for late in (
        lambda: store.open(3, sleeper),
        lambda: store.write(3, sleeper, version, "x", 0, b"old"),
        lambda: store.commit(3, sleeper, version + 1),
    ):
        with pytest.raises(OutdatedAttemptError):
            late()
    assert store.read(3, store.newest(3)[0], "work/model/weights", 0) == b"of the new"


def test_what_is_asked_twice_is_done_once(store):
    attempt = store.begin_attempt(3)
    version = store.open(3, attempt)
    assert store.open(3, attempt) == version
    for _ in range(2):
        store.write(3, attempt, version, "file", 0, b"text")
    store.commit(3, attempt, version)
    store.commit(3, attempt, version)
    assert store.newest(3) == (version, [("file", 4)])


def test_dropping_a_row_frees_its_space_and_shuts_it(store):
    attempt = store.begin_attempt(3)
    send(store, attempt, b"some bytes")
    other = store.begin_attempt(4)
    send(store, other, b"of another", row=4)
    assert store.drop(3) == 10
    assert store.newest(3) is None
    with pytest.raises(OutdatedAttemptError):
        store.open(3, attempt)
    assert store.newest(4) is not None
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
    store.abandon(3, version)
    assert store.newest(3)[0] == first
    assert send(store, attempt, b"later one") == version
