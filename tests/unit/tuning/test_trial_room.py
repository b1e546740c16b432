"""Trials that share a machine with a made-up memory, under a clock that the test moves."""

import pytest

from tuning.memory_pressure import MemoryReading
from tuning.promises import Promises
from tuning.room import SHORT_S
from tuning.trial_room import TrialRoom


class Machine:
    """Of 8 GB: a reserve of 800 MB."""

    def __init__(self, folder):
        self.folder = folder
        self.available_mb = 8000.0
        self.now = 100.0

    def room(self, cap_mb=1000, reserve=None):
        self.now += 0.01
        return TrialRoom(
            cap_mb,
            reserve,
            read=lambda: MemoryReading(8000, self.available_mb),
            promises=Promises(self.folder),
            clock=lambda: self.now,
        )

    def until_not_stay(self, *rooms):
        """Which of the rooms gets another verdict first, and which."""
        for _ in range(40):
            self.now += 0.25
            for number, room in enumerate(rooms):
                verdict = room.check(900)
                if verdict != "stay":
                    return number, verdict
        return None


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "promises")


def test_a_trial_takes_its_room_and_gives_it_back(machine):
    machine.available_mb = 2599
    with machine.room() as first:
        assert first.take() is None
        with machine.room() as second:
            assert second.take() is not None, "none of the first one's cap is taken yet"
            assert second.take().free_mb == 1599
            machine.available_mb = 1600
            first.check(held_mb=1000)
            assert second.take() is None
    with machine.room() as third:
        assert third.take() is None


def test_room_that_was_given_back_is_not_promised_again_by_a_late_check(machine):
    with machine.room() as room:
        room.take()
    room.check(held_mb=500)
    assert not list(machine.folder.glob("trial-*"))


def test_the_reserve_may_be_asked_for(machine):
    machine.available_mb = 1076
    with machine.room(reserve=100) as small:
        assert small.take() is None
    with machine.room(reserve=104) as larger:
        assert larger.take() is not None


def test_one_after_the_other_leaves_the_youngest_first(machine):
    with machine.room() as waited, machine.room() as old:
        assert old.take() is None
        machine.now += 1
        assert waited.take() is None, "younger: it started later"
        machine.available_mb = 300
        assert machine.until_not_stay(old, waited) == (1, "leave")
        assert old.check(900) == "stay"
        assert waited.check(900) == "stay", "it is leaving"
        assert machine.until_not_stay(old, waited) == (1, "kill")
        waited.__exit__()
        left_at = machine.now
        assert machine.until_not_stay(old) == (0, "leave")
        assert machine.now - left_at >= SHORT_S


def test_memory_that_was_short_a_moment_ago_explains_a_kill(machine):
    with machine.room() as room:
        room.take()
        assert not room.was_short
        machine.available_mb = 300
        room.check(900)
        assert room.was_short
        assert room.free_mb == 300
        machine.available_mb = 5000
        room.check(900)
        assert room.free_mb == 300, "why it left, whatever is free by now"
        machine.now += SHORT_S
        assert room.was_short
        machine.now += 0.1
        assert not room.was_short


def test_without_a_usable_folder_each_trial_is_as_if_alone(machine):
    machine.folder.mkdir(mode=0o755)
    with machine.room() as first, machine.room() as second:
        machine.available_mb = 1600
        assert first.take() is None
        assert second.take() is None
        machine.available_mb = 300
        assert machine.until_not_stay(first) == (0, "leave")
        assert machine.until_not_stay(second) == (0, "leave")


def test_a_promise_that_cannot_be_written_does_not_end_the_trial(machine, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Promises, "write", full)
    with machine.room() as room:
        assert room.take() is None
        assert room.check(900) == "stay"
