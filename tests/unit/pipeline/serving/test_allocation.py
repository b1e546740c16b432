"""What a server does with its memory once all is loaded."""

import gc

from pipeline.serving import allocation


def test_what_is_loaded_is_left_alone_by_the_collector_and_what_was_freed_is_returned(monkeypatch):
    returned = []
    monkeypatch.setattr(allocation, "give_back_freed_memory", lambda: returned.append(1))
    try:
        allocation.settle()
        assert gc.get_freeze_count() > 1000
        assert returned == [1]
    finally:
        gc.unfreeze()
