"""What the delivery thread records and delivers, and when; with a stand-in for the tracker."""

import threading
from pathlib import Path

import pytest

from pipeline.errors import WorkspaceError
from pipeline.tracking.background import BackgroundDelivery
from pipeline.tracking.delivery import RunIdentity

RUN = RunIdentity("abc-1", "small")


class Tracker:
    """Remembers its calls; `deliver_recorded` waits for `gate`."""

    def __init__(self):
        self.calls, self.delivers, self.gate = [], True, threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self.fails, self.failed = 0, threading.Event()

    def record(self, run, journal_id, folder, *, upto=None, status=None):
        assert (run, journal_id, folder) == (RUN, "train/abc", Path("folder"))
        if self.fails and status is None:
            self.fails -= 1
            self.failed.set()
            raise WorkspaceError("the disk is full")
        self.calls.append(("record", upto, status))

    def deliver_recorded(self, key, *, force=False):
        assert key == RUN.key
        self.calls.append(("deliver", force))
        self.arrived.set()
        assert self.gate.wait(30)
        return self.delivers


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def delivery(tracker):
    made = BackgroundDelivery(tracker, RUN, "train/abc", Path("folder"))
    yield made
    tracker.gate.set()
    if made.has_started:
        made._thread.join(30)
        assert not made._thread.is_alive()


def test_nothing_starts_before_there_is_something_to_deliver(delivery, tracker):
    assert not delivery.has_started
    assert delivery.close(upto=7, status="FINISHED", timeout_s=30)
    assert tracker.calls == [("record", 7, "FINISHED"), ("deliver", True)]


def test_what_became_durable_is_recorded_and_then_delivered_without_force(delivery, tracker):
    delivery.notify(5)
    assert tracker.arrived.wait(30)
    assert tracker.calls[:2] == [("record", 5, None), ("deliver", False)]
    delivery.close(upto=7, status="FINISHED", timeout_s=30)
    assert tracker.calls[-2:] == [("record", 7, "FINISHED"), ("deliver", True)]


def test_while_the_store_is_slow_only_the_newest_is_kept_and_the_end_is_not_undone(delivery, tracker):
    tracker.gate.clear()
    delivery.notify(5)
    assert tracker.arrived.wait(30)
    for upto in (6, 7):
        delivery.notify(upto)
    assert not delivery.close(upto=9, status="KILLED", timeout_s=0.01)
    tracker.gate.set()
    delivery._thread.join(30)
    assert [call for call in tracker.calls if call[0] == "record"] == [("record", 5, None), ("record", 9, "KILLED")]
    assert tracker.calls[-1] == ("deliver", True)


def test_that_the_store_did_not_take_it_is_the_result(delivery, tracker):
    tracker.delivers = False
    delivery.notify(5)
    assert not delivery.close(upto=9, status="FINISHED", timeout_s=30)


def test_a_record_that_cannot_be_written_does_not_end_the_thread(delivery, tracker):
    tracker.fails = 1
    delivery.notify(5)
    assert tracker.failed.wait(30)
    delivery.notify(6)
    assert tracker.arrived.wait(30)
    assert tracker.calls[:2] == [("record", 6, None), ("deliver", False)]
    delivery.close(upto=7, status="FINISHED", timeout_s=30)
