"""What is kept of runs and stores, and what follows from it."""

import pytest

from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, StoreRecord
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def kept(workspace: Workspace, journals: tuple[str, ...], lock: str = "") -> RunRecord:
    delivery_state.write_run(
        workspace, RunRecord("k", "n", journals={name: JournalRecord("x", 0) for name in journals}, lock=lock)
    )
    record = delivery_state.read_run(workspace, "k")
    assert record is not None
    return record


def test_a_run_is_worked_on_while_the_lock_that_its_record_names_is_held(workspace):
    record = kept(workspace, ("train/f00",), lock="train-f01")
    assert not delivery_state.is_worked_on(workspace, record)
    with exclusive(workspace.lock("train-f00"), print, what="another"):
        assert not delivery_state.is_worked_on(workspace, record)
    with exclusive(workspace.lock("train-f01"), print, what="it"):
        assert delivery_state.is_worked_on(workspace, record)


@pytest.mark.parametrize(
    ("journals", "lock"),
    [
        (("train/f00", "evaluate/e00"), "train-f00"),
        (("evaluate/e00", "train/f00"), "train-f00"),
        (("search/s00",), "search-s00"),
        (("search/s00/00003",), "search-s00"),
    ],
)
def test_a_record_of_before_tells_its_lock_by_its_journals(workspace, journals, lock):
    assert kept(workspace, journals).lock == lock


def test_a_run_of_which_no_lock_is_known_is_never_taken_for_dead(workspace):
    record = kept(workspace, ("somebody/elses",))
    assert (record.lock, delivery_state.is_worked_on(workspace, record)) == ("", True)


def recorded(workspace: Workspace, key: str, upto: int = 9, status="FINISHED") -> RunRecord:
    record = RunRecord(key, key, status, {"train/f00": JournalRecord("x", upto)}, lock="train-f00")
    delivery_state.write_run(workspace, record)
    return record


def sent(workspace: Workspace, key: str, address: str = "http://a", run_id: str = "r", **more) -> StoreRecord:
    more = {"status": "FINISHED", "delivered": {"train/f00": Delivered(9, "t")}, **more}
    store = StoreRecord(address, run_id, "e", **more)
    delivery_state.write_store(workspace, key, store)
    return store


def test_the_files_have_the_names_that_earlier_versions_gave_them(workspace):
    recorded(workspace, "k-1")
    store = sent(workspace, "k-1", "sqlite:////w/mlflow.db", last_event_ms=3)
    names = sorted(path.name for path in (workspace.hidden / "runs").iterdir())
    assert names == ["k-1.json", "k-1@8ee94c9320fb.json"]
    assert delivery_state.read_store(workspace, "k-1", "sqlite:////w/mlflow.db") == store
    assert delivery_state.read_store(workspace, "k-1", "sqlite:////elsewhere/mlflow.db") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"journals": 1}', '{"delivered": []}'])
def test_what_is_damaged_is_as_if_it_were_not_there(workspace, content):
    recorded(workspace, "k")
    sent(workspace, "k")
    for path in (workspace.hidden / "runs").iterdir():
        path.write_text(content)
    assert delivery_state.read_run(workspace, "k") is None
    assert delivery_state.read_store(workspace, "k", "http://a") is None
    assert list(delivery_state.every(workspace)) == []


@pytest.mark.parametrize(
    ("lacks", "more"),
    [
        (False, {}),
        (True, {"status": "RUNNING"}),
        (True, {"delivered": {"train/f00": Delivered(8, "t")}}),
        (True, {"delivered": {}}),
        (False, {"delivered": {"train/f00": Delivered(10, "t"), "evaluate/e00": Delivered(1, "t")}}),
    ],
)
def test_a_store_lacks_a_status_or_a_part_of_a_journal(workspace, lacks, more):
    record = recorded(workspace, "k")
    sent(workspace, "k", **more)
    assert delivery_state.pending(workspace, "http://a") == ([record] if lacks else [])
    assert delivery_state.pending(workspace, "http://a", is_gone=True) == [record]
    assert delivery_state.pending(workspace, "http://b") == [record]


@pytest.mark.parametrize(
    ("is_moved", "told", "lacks"), [(True, "", True), (True, "p", False), (True, "q", True), (False, "", False)]
)
def test_a_store_lacks_the_parent_of_a_run_that_was_moved(workspace, is_moved, told, lacks):
    record = recorded(workspace, "k")
    record.parent, record.is_moved = "p", is_moved
    delivery_state.write_run(workspace, record)
    sent(workspace, "k", parent=told)
    assert delivery_state.pending(workspace, "http://a") == ([record] if lacks else [])


def test_a_run_without_a_journal_is_nothing_that_a_new_store_lacks(workspace):
    delivery_state.write_run(workspace, RunRecord("k", "n"))
    assert delivery_state.pending(workspace, "http://a") == []


def test_open_runs_are_those_that_are_recorded_as_running(workspace):
    recorded(workspace, "done")
    running = recorded(workspace, "running", status="RUNNING")
    assert delivery_state.open_runs(workspace) == [running]


def test_a_new_store_at_an_address_has_nothing_and_others_keep_theirs(workspace):
    recorded(workspace, "k")
    sent(workspace, "k")
    other = sent(workspace, "k", "http://b")
    delivery_state.forget_store(workspace, "http://a")
    assert delivery_state.read_store(workspace, "k", "http://a") is None
    assert delivery_state.read_store(workspace, "k", "http://b") == other
    assert delivery_state.addresses(workspace) == {"http://b"}


def test_a_store_that_moved_keeps_what_it_had_of_the_runs_that_it_has(workspace):
    for key in ("moved", "known", "foreign"):
        recorded(workspace, key)
        sent(workspace, key, "old", run_id=key)
    known = sent(workspace, "known", "new", run_id="made there")
    elsewhere = sent(workspace, "moved", "third", run_id="moved")
    delivery_state.readdress_store(workspace, "old", "new", {"moved", "known", "made there"})
    assert delivery_state.read_store(workspace, "moved", "new").run_id == "moved"
    assert delivery_state.read_store(workspace, "known", "new") == known
    assert delivery_state.read_store(workspace, "foreign", "new") is None
    assert delivery_state.read_store(workspace, "moved", "third") == elsewhere
    assert delivery_state.addresses(workspace) == {"new", "third"}


def test_a_journal_is_found_in_its_folder_also_once_that_is_whole(workspace):
    journal = JournalRecord(".seqpipe/stages/train/f00.partial", 9)
    assert delivery_state.journal_path(workspace, journal) is None
    whole = workspace.stage("train") / "f00"
    for folder in (whole, whole.with_name("f00.partial")):
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").touch()
        assert delivery_state.journal_path(workspace, journal) == folder / "journal.jsonl"


def test_the_tail_of_a_journal_is_its_last_1024_bytes_before_the_offset(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"a" * 1000 + b"b" * 1024 + b"c")
    digest = delivery_state.tail_digest(path, 2024)
    path.write_bytes(b"z" * 1000 + b"b" * 1024 + b"z")
    assert delivery_state.tail_digest(path, 2024) == digest
    path.write_bytes(b"z" * 1000 + b"z" + b"b" * 1023 + b"z")
    assert delivery_state.tail_digest(path, 2024) != digest
    path.write_bytes(b"short")
    assert delivery_state.tail_digest(path, 5) == "f9b0078b5df596d2"
