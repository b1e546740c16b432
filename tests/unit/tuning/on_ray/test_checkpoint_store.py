import pytest

from tuning.on_ray.checkpoint_store import Keeper, OutdatedAttemptError


@pytest.fixture
def keeper(tmp_path):
    return Keeper(str(tmp_path / "checkpoints"))


def send(keeper, attempt, text, row=3):
    version = keeper.open(row, attempt)
    keeper.write(row, attempt, version, "work/model/weights", 0, text[:4])
    keeper.write(row, attempt, version, "work/model/weights", 4, text[4:])
    keeper.write(row, attempt, version, "reports.json", 0, b"")
    keeper.commit(row, attempt, version)
    return version


def test_the_newest_whole_checkpoint_is_what_is_fetched(keeper):
    attempt = keeper.begin(3)
    assert keeper.newest(3) is None
    send(keeper, attempt, b"first one")
    version = send(keeper, attempt, b"second one")
    assert keeper.newest(3) == (version, [("reports.json", 0), ("work/model/weights", 10)])
    assert keeper.read(3, version, "work/model/weights", 0) == b"second one"
    assert keeper.read(3, version, "work/model/weights", 8) == b"ne"


def test_only_the_newest_takes_space(keeper, tmp_path):
    attempt = keeper.begin(3)
    for text in (b"first one", b"second one", b"third one"):
        send(keeper, attempt, text)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "row-00003").iterdir()) == ["000003", "attempt"]


def test_a_checkpoint_that_is_not_whole_is_never_seen(keeper, tmp_path):
    attempt = keeper.begin(3)
    send(keeper, attempt, b"whole one")
    version = keeper.open(3, attempt)
    keeper.write(3, attempt, version, "work/model/weights", 0, b"half")
    again = Keeper(str(tmp_path / "checkpoints"))  # after a crash
    again.begin(3)
    assert again.read(3, again.newest(3)[0], "work/model/weights", 0) == b"whole one"
    assert not list(tmp_path.rglob("*.partial"))


def test_an_attempt_that_woke_up_too_late_may_not_write(keeper, tmp_path):
    sleeper = keeper.begin(3)
    version = keeper.open(3, sleeper)
    keeper = Keeper(str(tmp_path / "checkpoints"))
    send(keeper, keeper.begin(3), b"of the new")
    for late in (
        lambda: keeper.open(3, sleeper),
        lambda: keeper.write(3, sleeper, version, "x", 0, b"old"),
        lambda: keeper.commit(3, sleeper, version + 1),
    ):
        with pytest.raises(OutdatedAttemptError):
            late()
    assert keeper.read(3, keeper.newest(3)[0], "work/model/weights", 0) == b"of the new"


def test_what_is_asked_twice_is_done_once(keeper):
    attempt = keeper.begin(3)
    version = keeper.open(3, attempt)
    assert keeper.open(3, attempt) == version
    for _ in range(2):
        keeper.write(3, attempt, version, "file", 0, b"text")
    keeper.commit(3, attempt, version)
    keeper.commit(3, attempt, version)
    assert keeper.newest(3) == (version, [("file", 4)])


def test_dropping_a_row_frees_its_space_and_shuts_it(keeper):
    attempt = keeper.begin(3)
    send(keeper, attempt, b"some bytes")
    other = keeper.begin(4)
    send(keeper, other, b"of another", row=4)
    assert keeper.drop(3) == 10
    assert keeper.newest(3) is None
    with pytest.raises(OutdatedAttemptError):
        keeper.open(3, attempt)
    assert keeper.newest(4) is not None
    assert keeper.drop(3) == 0
    assert keeper.drop(99) == 0


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_one_before(keeper, monkeypatch):
    attempt = keeper.begin(3)
    first = send(keeper, attempt, b"first one")
    version = keeper.open(3, attempt)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    keeper.write(3, attempt, version, "file", 0, b"text")
    with pytest.raises(OSError, match="No space"):
        keeper.commit(3, attempt, version)
    monkeypatch.undo()
    keeper.abandon(3, version)
    assert keeper.newest(3)[0] == first
    assert send(keeper, attempt, b"later one") == version
