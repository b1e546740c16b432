import os
import signal
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from pipeline import stop
from pipeline.errors import BudgetExhaustedError, InterruptedRunError
from pipeline.stop import StopToken


@pytest.fixture(autouse=True)
def no_signal_yet(monkeypatch):
    monkeypatch.setattr(stop, "_received", False)
    monkeypatch.setattr(stop, "_hung_up", False)


def test_without_a_signal_or_a_limit_there_is_no_reason_to_stop():
    assert StopToken().reason() is None
    assert StopToken(max_time_s=1000).reason() is None


def test_raise_if_asked_raises_the_reason_and_nothing_without_one():
    StopToken().raise_if_asked()
    with pytest.raises(BudgetExhaustedError, match="seqpipe tune resumes"):
        StopToken(max_time_s=0, again="seqpipe tune").raise_if_asked()


def test_no_handler_of_ordinary_errors_keeps_an_interrupted_command_from_ending():
    assert not issubclass(InterruptedRunError, Exception)


def test_a_used_up_budget_is_a_reason_with_exit_code_4():
    reason = StopToken(max_time_s=0).reason()
    assert isinstance(reason, BudgetExhaustedError)
    assert reason.exit_code == 4
    assert "the same command resumes" in str(reason)


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_first_signal_while_deferring_is_only_remembered_as_the_reason_to_stop(number, code, name):
    with StopToken().installed() as stop_token, stop_token.deferring():
        os.kill(os.getpid(), number)
        reason = stop_token.reason()
    assert stop.signal_received()
    assert isinstance(reason, InterruptedRunError)
    assert reason.exit_code == code
    assert name in str(reason)


def test_a_signal_that_an_import_swallows_stops_at_the_next_check():
    with StopToken(again="seqpipe tune").installed() as stop_token:
        with pytest.raises(InterruptedRunError):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedRunError, match="seqpipe tune resumes"):
            stop_token.raise_if_asked()


def test_a_signal_that_was_swallowed_before_there_was_a_token_stops_too():
    before = stop.listen(stop._raise_interrupted)
    try:
        with pytest.raises(InterruptedRunError):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        stop.restore(before)
    assert StopToken().reason().exit_code == 143


def test_a_second_signal_stops_at_once():
    with StopToken().installed() as stop_token, stop_token.deferring():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedRunError):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_closed_terminal_that_signals_twice_counts_as_one_signal():
    with StopToken().installed() as stop_token:
        with stop_token.deferring():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop_token.reason().exit_code == 129
        os.kill(os.getpid(), signal.SIGHUP)  # while what was reached is being written down


@pytest.mark.parametrize("number", stop.STOP_SIGNALS)
def test_what_a_command_was_started_to_ignore_stays_ignored(number):
    """SIGHUP under `nohup`, SIGINT behind `&` in a script."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopToken().installed() as stop_token, stop_token.deferring():
            os.kill(os.getpid(), number)
            assert stop_token.reason() is None
    finally:
        signal.signal(number, before)


def test_a_signal_while_nothing_defers_it_stops_at_once():
    with StopToken().installed() as stop_token:
        with stop_token.deferring():
            pass
        with pytest.raises(InterruptedRunError) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_a_signal_counts_more_than_the_budget():
    with StopToken(max_time_s=0).installed() as stop_token, stop_token.deferring():
        os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(stop_token.reason(), InterruptedRunError)


def test_the_earlier_handlers_are_restored_even_after_an_error():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with StopToken().installed():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_arrives_inside_a_finaliser_is_sent_again(monkeypatch):
    sent: SimpleQueue[tuple[int, int]] = SimpleQueue()
    monkeypatch.setattr(stop.os, "kill", lambda *arguments: sent.put(arguments))
    stop._send_again(SimpleNamespace(exc_value=InterruptedRunError("interrupted", signal.SIGTERM)))
    assert sent.get(timeout=10) == (os.getpid(), signal.SIGTERM)
