"""How a command under a cap ends, from how its capped process ended."""

import signal
from types import SimpleNamespace

import pytest

from pipeline.cli import capped_command
from pipeline.errors import InterruptedRunError, MemoryCapError, SeqpipeError
from tuning import machine
from tuning.capped import run_capped as capped
from tuning.capped.run_capped import CapTooLowError


@pytest.fixture
def ending(monkeypatch):
    """Runs a command whose capped process ends as given; `kills` are those of the container, before and after."""

    def run(outcome="failed", *, kills=(0, 0), raises=None, **how):
        counts = iter(kills)

        def run_capped(*_, **__):
            if raises is not None:
                raise raises
            return SimpleNamespace(**{"outcome": outcome, "value": None, "peak_mb": 950.0, "signal": None} | how)

        monkeypatch.setattr(capped, "run_capped", run_capped)
        monkeypatch.setattr(machine, "out_of_memory_kills", lambda: next(counts))
        return capped_command.run_again_under(900, lambda debug: 0)

    return run


def test_a_command_that_ends_by_itself_ends_this_one_with_its_code(ending):
    assert [ending("completed", value=code) for code in (0, 4)] == [0, 4]


def test_a_command_at_its_cap_says_what_it_held_and_what_to_do(ending):
    with pytest.raises(MemoryCapError, match=r"held 950 MB and was ended at its cap of 900 MB.*\n.*--max-memory-mb"):
        ending("memory_cap")


def test_a_cap_below_what_the_imports_take_is_refused_with_that(ending):
    with pytest.raises(MemoryCapError, match="900 MB are too few: what this command imports takes 1200 MB"):
        ending(raises=CapTooLowError(1200.0, 900.0))


def test_a_kill_by_the_kernel_in_a_container_is_its_memory(ending):
    with pytest.raises(MemoryCapError, match="this container's memory ran out below the cap of 900 MB"):
        ending(signal=signal.SIGKILL, kills=(3, 4), error="ended by SIGKILL")


@pytest.mark.parametrize("kills", [(3, 3), (3, 4)])
def test_any_other_end_says_how(ending, kills):
    number = signal.SIGKILL if kills == (3, 3) else signal.SIGSEGV
    with pytest.raises(SeqpipeError, match=r"did not end by itself \(why\)") as caught:
        ending(signal=number, kills=kills, error="why")
    assert caught.value.exit_code == 1


def test_signals_are_passed_on_twice_and_the_third_ends_this_command(monkeypatch):
    sent = []
    monkeypatch.setattr(capped_command.os, "kill", lambda pid, number: sent.append((pid, number)))
    other = capped_command._CappedProcess()
    with pytest.raises(InterruptedRunError):  # there is nobody to pass it on to yet
        other._pass_on(signal.SIGTERM, None)
    other = capped_command._CappedProcess()
    other.started(4711)
    for _ in range(2):
        other._pass_on(signal.SIGTERM, None)
    assert sent == 2 * [(4711, signal.SIGTERM)]
    with pytest.raises(InterruptedRunError):
        other._pass_on(signal.SIGTERM, None)


def test_a_process_that_has_just_ended_is_sent_nothing_more(monkeypatch):
    calls = []

    def gone(pid, number):
        calls.append(number)
        raise ProcessLookupError

    monkeypatch.setattr(capped_command.os, "kill", gone)
    other = capped_command._CappedProcess()
    other.started(4711)
    other._pass_on(signal.SIGTERM, None)
    other._send(signal.SIGCONT)
    assert calls == [signal.SIGTERM]
