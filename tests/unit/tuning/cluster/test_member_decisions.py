import random
from dataclasses import replace

import pytest

from tuning.cluster.member_decisions import (
    LEAVE_S,
    REFUSED_S,
    SILENT_S,
    Begin,
    End,
    Finish,
    HeadState,
    Member,
    RefuseWork,
    Seen,
    SendTrialsAway,
    TakeWork,
    Wait,
)
from tuning.cluster.orders import Order

AWAY = Seen(100.0, HeadState.ANSWERS)
UP = Seen(100.0, HeadState.ANSWERS, runs=True)


def at(seen: Seen, now: float, **changes: object) -> Seen:
    return replace(seen, now=now, **changes)


def joined() -> Member:
    member = Member()
    assert member.next(AWAY) == Begin()
    assert member.begun(100.0) is None
    assert member.next(UP) is None
    return member


def test_a_member_begins_as_soon_as_the_head_answers():
    assert Member().next(AWAY) == Begin()


def test_while_the_head_cannot_be_joined_it_waits_1_2_and_then_3_seconds():
    member, now, waits = Member(), 100.0, []
    while len(waits) < 5:
        step = member.next(at(AWAY, now, head=HeadState.SILENT))
        if isinstance(step, Wait):
            waits.append((now, step.retry_s))
        now += 0.5
    assert waits == [(100.0, 1.0), (101.0, 2.0), (103.0, 3.0), (106.0, 3.0), (109.0, 3.0)]
    assert member.next(at(AWAY, now)) is None  # the head is back before the next attempt is due
    assert member.next(at(AWAY, 112.0)) == Begin()


def test_a_start_that_failed_is_repeated_after_a_while():
    member = Member()
    assert member.next(AWAY) == Begin()
    assert member.begun(100.0, failed="a port is taken") == Wait("a port is taken", 1.0)
    assert member.next(at(AWAY, 100.5)) is None
    assert member.next(at(AWAY, 101.0)) == Begin()


def test_a_silent_head_ends_nothing_until_it_must_have_given_the_node_up():
    member = joined()
    silent = at(UP, 110.0, head=HeadState.SILENT)
    assert member.next(silent) is None
    assert member.next(at(silent, 110.0 + SILENT_S - 0.1)) is None
    assert member.next(at(UP, 185.0)) is None  # it is back: the count begins anew
    assert member.next(at(silent, 186.0)) is None
    assert member.next(at(silent, 186.0 + SILENT_S)) == End("the head has not answered for 75 s")


def test_a_cut_of_25_seconds_and_a_stalled_connection_after_it_end_nothing():
    assert SILENT_S > 2 * 25


def test_a_head_that_refuses_connections_counts_as_ended_after_three_seconds_not_at_once():
    member = joined()
    refused = at(UP, 110.0, head=HeadState.REFUSES)
    assert member.next(refused) is None
    assert member.next(at(refused, 110.0 + REFUSED_S - 0.1)) is None
    assert member.next(at(UP, 113.0)) is None  # it is back: the count begins anew
    assert member.next(at(refused, 114.0)) is None
    assert member.next(at(refused, 114.0 + REFUSED_S)) == End("the head has ended")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"runs": False}, "processes have ended"),
        ({"counted_dead": True}, "given it up"),
        ({"address_changed": True}, "another address"),
        ({"head": HeadState.OTHER}, "started anew"),
        ({"head": HeadState.LOCKED}, "started anew"),
    ],
)
def test_what_ends_a_node_and_that_it_begins_again_at_once(change, why):
    member = joined()
    step = member.next(at(UP, 110.0, **change))
    assert isinstance(step, End)
    assert why in step.why
    assert member.next(at(AWAY, 110.1)) == Begin()


def test_a_head_with_another_code_ends_the_member():
    member = joined()
    assert isinstance(member.next(at(UP, 110.0, head=HeadState.LOCKED)), End)
    step = member.next(at(AWAY, 110.1, head=HeadState.LOCKED))
    assert isinstance(step, Finish)
    assert step.locked_out


@pytest.mark.parametrize("change", [{"stop_asked": True}, {"order": Order.LEAVE}, {"order": Order.DOWN}])
def test_whoever_leaves_sends_its_trials_away_first_and_waits_for_them(change):
    member = joined()
    asked = at(UP, 110.0, trials=2, **change)
    first = member.next(asked)
    assert isinstance(first, SendTrialsAway)
    assert member.next(at(asked, 111.0, trials=1)) is None
    assert member.next(at(asked, 112.0, trials=0)) == Finish(first.why)


def test_trials_that_do_not_go_are_waited_for_no_longer_than_that():
    member = joined()
    asked = at(UP, 110.0, trials=1, stop_asked=True)
    assert isinstance(member.next(asked), SendTrialsAway)
    assert member.next(at(asked, 110.0 + LEAVE_S - 0.1)) is None
    assert isinstance(member.next(at(asked, 110.0 + LEAVE_S)), Finish)


def test_a_node_that_is_lost_while_it_leaves_is_not_waited_for():
    member = joined()
    asked = at(UP, 110.0, trials=1, stop_asked=True)
    assert isinstance(member.next(asked), SendTrialsAway)
    assert isinstance(member.next(at(asked, 111.0, runs=False)), Finish)


def test_without_trials_or_a_node_it_ends_at_once():
    assert joined().next(at(UP, 110.0, stop_asked=True)) == Finish("asked to leave")
    assert Member().next(at(AWAY, 110.0, stop_asked=True, head=HeadState.SILENT)) == Finish("asked to leave")


def test_an_unfit_node_refuses_work_until_it_is_fit_again_and_says_so_once():
    member = joined()
    full = at(UP, 110.0, unfit="the disk is full")
    assert member.next(full) == RefuseWork("the disk is full")
    assert member.next(at(full, 111.0)) is None
    assert member.next(at(full, 112.0, unfit="the clock is wrong")) == RefuseWork("the clock is wrong")
    assert member.next(at(UP, 113.0)) == TakeWork()
    assert member.next(at(UP, 114.0)) is None


def test_a_node_that_comes_back_unfit_says_so_again():
    member = joined()
    assert isinstance(member.next(at(UP, 110.0, unfit="full")), RefuseWork)
    assert isinstance(member.next(at(UP, 111.0, unfit="full", runs=False)), End)
    assert member.next(at(AWAY, 111.1)) == Begin()
    member.begun(115.0)
    assert member.next(at(UP, 115.1, unfit="full")) == RefuseWork("full")


class World:
    """A laptop and a head to which anything may happen; the member's steps are carried out at once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.runs = self.is_up = self.refuses_work = self.counted_dead = False
        self.head = HeadState.ANSWERS
        self.head_since = 0.0
        self.trials = 0
        self.unfit: str | None = None
        self.stop_at = self.random.uniform(50, 400)

    def happen(self) -> None:
        chance = self.random.random
        if chance() < 0.02:
            before, self.head = self.head, self.random.choice([*HeadState][:3])
            self.head_since = self.head_since if self.head is before else self.now
        if self.is_up and chance() < 0.01:
            self.runs = False
        if self.is_up and self.head is HeadState.ANSWERS and chance() < 0.01:
            self.counted_dead = True
        if chance() < 0.02:
            self.unfit = self.random.choice([None, "full", "late"])
        if self.runs and not self.refuses_work:
            self.trials = min(2, self.trials + (chance() < 0.2))
        elif chance() < 0.3:
            self.trials = max(0, self.trials - 1)

    def seen(self) -> Seen:
        return Seen(
            self.now,
            self.head,
            runs=self.runs,
            counted_dead=self.counted_dead,
            stop_asked=self.now >= self.stop_at,
            trials=self.trials if self.runs else 0,
            unfit=self.unfit if self.is_up else None,
        )


@pytest.mark.parametrize("block", range(20))
def test_in_a_thousand_histories_no_member_is_stuck_and_none_is_ended_by_silence(block):
    for seed in range(50 * block, 50 * block + 50):
        world, member = World(seed), Member()
        joinable_since = None
        while True:
            world.happen()
            seen = world.seen()
            step = member.next(seen)
            match step:
                case Begin():
                    assert not world.is_up
                    assert seen.head is HeadState.ANSWERS
                    if world.random.random() < 0.2:
                        member.begun(world.now, failed="by chance")
                    else:
                        member.begun(world.now)
                        world.is_up = world.runs = True
                        world.counted_dead = world.refuses_work = False
                case End():
                    assert world.is_up
                    lost = not seen.runs or seen.counted_dead or seen.head is HeadState.REFUSES
                    assert lost or world.now - world.head_since >= SILENT_S
                    world.is_up = world.runs = world.counted_dead = False
                    world.trials = 0
                case RefuseWork():
                    assert seen.unfit
                    world.refuses_work = True
                case TakeWork():
                    assert world.refuses_work
                    world.refuses_work = False
                case SendTrialsAway():
                    world.refuses_work = True
                case Finish():
                    assert seen.stop_asked
                    assert world.now <= world.stop_at + LEAVE_S + 1
                    break
                case _:
                    pass
            if world.is_up and world.runs and not seen.stop_asked and world.head is HeadState.ANSWERS:
                assert world.refuses_work == (seen.unfit is not None) or step is not None
            joinable = not world.is_up and seen.head is HeadState.ANSWERS and not seen.stop_asked
            joinable_since = (joinable_since or world.now) if joinable else None
            assert joinable_since is None or world.now - joinable_since < 40, "it waits for nothing"
            world.now += world.random.choice([0.25, 0.25, 1.0, 2.0])
            assert world.now < 1000
