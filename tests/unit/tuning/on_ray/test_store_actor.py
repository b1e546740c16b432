from pathlib import Path

import pytest
from fake_ray import NODE

from tuning.errors import LedgerError
from tuning.on_ray.store_actor import SILENT_LEAVING_S, SILENT_S, StoreActor
from tuning.traffic import Sent


class Leaving:
    def __init__(self):
        self.asked = False

    def __call__(self):
        return self.asked


@pytest.fixture
def leaving():
    return Leaving()


@pytest.fixture
def actor(ray, tmp_path, leaving):
    return StoreActor(tmp_path, "", NODE, leaving, ray.clock)


def with_checkpoint(actor, row):
    store = actor.handle.target
    attempt = store.begin_attempt(row)
    version = store.open(row, attempt)
    store.write(row, attempt, version, "weights", 0, b"12345")
    store.commit(row, attempt, version)


def test_the_store_is_kept_running_on_the_driver_s_node(ray, actor):
    placement = ray.options.pop("scheduling_strategy")
    assert (placement.node_id, placement.soft) == (NODE, False)
    assert ray.options == {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}


def test_it_keeps_checkpoints_in_the_search_folder(actor, tmp_path):
    with_checkpoint(actor, 3)
    assert (Path(tmp_path) / "row-00003" / "000001" / "weights").read_bytes() == b"12345"


def test_a_checkpoint_that_is_dropped_says_what_it_freed(actor):
    with_checkpoint(actor, 3)
    assert actor.drop(3) == 5
    assert actor.handle.target.newest(3, actor.begin_attempt(3)) is None


@pytest.mark.parametrize(("asked", "limit_s"), [(False, SILENT_S), (True, SILENT_LEAVING_S)])
def test_a_silent_store_is_waited_for_no_longer_than_the_user_can_wait(ray, actor, leaving, asked, limit_s):
    actor.handle.silent = {"drop"}
    leaving.asked = asked
    before = ray.now
    assert actor.drop(3) is None
    assert ray.now - before == pytest.approx(limit_s, abs=0.25)


def test_a_request_to_stop_reaches_the_store(actor):
    actor.ask_to_stop()
    assert actor.handle.target.stop_asked()


def test_an_attempt_is_numbered_without_asking_the_store(actor):
    assert [actor.begin_attempt(3), actor.begin_attempt(3), actor.begin_attempt(4)] == [1, 2, 1]
    assert actor.handle.calls == []
    assert (actor.handle.target.order(3, 1), actor.handle.target.order(3, 2)) == ("end", "stay")


def test_a_disk_on_which_no_attempt_can_be_numbered_ends_the_search(actor, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LedgerError, match="No space left on device; the search can go on later"):
        actor.begin_attempt(3)


def test_what_was_sent_is_told_by_node_and_a_silent_store_is_not_waited_for(ray, actor):
    actor.handle.target.sent = lambda: {"two": [5, 6, 7]}
    assert actor.sent() == {"two": Sent(5, 6, 7)}
    actor.handle.silent = {"sent"}
    before = ray.now
    assert actor.sent() == {}
    assert ray.now - before == pytest.approx(SILENT_LEAVING_S, abs=0.25)


def test_whether_there_are_other_nodes_reaches_the_store(actor):
    actor.nodes_are(True)
    assert actor.handle.target.has_other_nodes()
