import pytest

from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import JournalRecord, RunRecord
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
