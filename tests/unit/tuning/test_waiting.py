import threading
import time

import pytest

from tuning import loopback, waiting
from tuning.errors import AskedToLeaveError
from tuning.waiting import Helper, result_of


@pytest.fixture(autouse=True)
def _none_given_up_before(monkeypatch):
    monkeypatch.setattr(waiting, "_given_up", [])


@pytest.fixture
def hanging():
    """A call that returns when the test is over."""
    over = threading.Event()
    yield over.wait
    over.set()


def test_a_call_gives_its_value_or_its_error():
    with Helper("test") as helper:
        assert result_of(helper.begin(lambda: 7)) == 7
        with pytest.raises(ZeroDivisionError):
            result_of(helper.begin(lambda: 1 / 0))
        with pytest.raises(TimeoutError, match="its own"):
            result_of(helper.begin(lambda: (_ for _ in ()).throw(TimeoutError("its own"))))
    assert not waiting.is_anything_stuck()


def test_calls_are_made_by_one_thread_that_stays_as_long_as_the_context():
    with Helper("test") as helper:
        first, second = (result_of(helper.begin(threading.current_thread)) for _ in range(2))
        assert first is second is not threading.current_thread()
        assert first.is_alive()
    first.join(5)
    assert not first.is_alive()


def test_a_call_that_hangs_is_given_up_in_time(hanging):
    began = time.monotonic()
    with Helper("test") as helper, pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        result_of(helper.begin(hanging), 0.2)
    assert 0.2 <= time.monotonic() - began < 1
    assert waiting.is_anything_stuck()


def test_who_is_asked_to_leave_waits_no_longer(hanging):
    began = time.monotonic()
    with Helper("test") as helper, pytest.raises(AskedToLeaveError):
        result_of(helper.begin(hanging), 60, lambda: time.monotonic() - began > 0.2)
    assert time.monotonic() - began < 1


def test_a_call_that_was_given_up_and_ends_is_no_longer_stuck():
    over = threading.Event()
    with Helper("test") as helper:
        future = helper.begin(over.wait)
        with pytest.raises(TimeoutError):
            result_of(future, 0.1)
        assert waiting.is_anything_stuck()
        over.set()
        future.result(5)
    assert not waiting.is_anything_stuck()


def test_this_machine_reaches_itself():
    loopback.check()


def test_an_address_that_is_not_this_machines_is_an_error():
    with pytest.raises(OSError, match="assign"):
        loopback.check("192.0.2.77")
