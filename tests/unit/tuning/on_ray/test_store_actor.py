from pathlib import Path

import pytest
from fake_ray import NODE

from tuning.on_ray.store_actor import SILENT_LEAVING_S, SILENT_S, StoreActor


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
    assert actor.handle.target.newest(3) is None


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
