"""Delivery in the background of a training."""

import threading
import time

from tracked_workspace import RUN, TRAIN, expected

from pipeline.tracking import delivery_state
from pipeline.tracking.background import BackgroundDelivery


def test_a_journal_is_delivered_while_the_training_goes_on(tracked):
    tracker = tracked.tracker()
    delivery = BackgroundDelivery(tracker, RUN, TRAIN, tracked.folder)
    for epoch in range(1, 6):
        delivery.notify(tracked.epochs(epoch, epoch))
    assert delivery.close(upto=tracked.journal.offset, status="FINISHED", timeout_s=30)
    assert tracked.rows() == expected(5)
    assert tracker.connection.client().get_run(tracker.run_id(RUN)).info.status == "FINISHED"
    assert threading.active_count() < 50


def test_a_store_that_hangs_neither_slows_nor_stops_a_training(tracked, monkeypatch):
    release, arrived = threading.Event(), threading.Event()
    tracker = tracked.tracker()
    deliver = tracker.deliver_recorded
    monkeypatch.setattr(tracker, "deliver_recorded", lambda *a, **k: (deliver(*a, **k), arrived.set())[0])
    delivery = BackgroundDelivery(tracker, RUN, TRAIN, tracked.folder)
    delivery.notify(tracked.epochs(1, 1))
    assert arrived.wait(30)
    monkeypatch.setattr(tracker.connection, "client", lambda: release.wait() and None)
    start = time.monotonic()
    delivery.notify(tracked.epochs(2, 2))
    assert not delivery.close(upto=tracked.epochs(3, 3), status="FINISHED", timeout_s=0.3)
    assert time.monotonic() - start < 2
    record = delivery_state.read_run(tracked.workspace, RUN.key)
    assert record is not None
    assert (record.status, record.journals[TRAIN].upto) == ("FINISHED", tracked.journal.offset)
    assert tracked.tracker().deliver_pending() == 0, "a run that is being delivered is not waited for"
    release.set()
    monkeypatch.undo()
    delivery._thread.join(30)
    tracked.tracker().deliver_pending()  # what the released thread did not get through with
    assert tracked.rows() == expected(3)
