import dataclasses
import random

import pytest

from pipeline.tracking.champion_history import TAG, Change, champion_before, read, settled

NOW = Change("99999999", "by hand", None, "2026-01-01T00:00:00Z", "me@here", "noticed")


def change(number, version, kind="promoted", *, is_done=True, **more):
    return Change(f"{number:08d}", kind, version, "2026-01-01T00:00:00Z", "me@here", "why", is_done=is_done, **more)


def versions(changes):
    return [each.version for each in changes]


def test_a_change_comes_back_from_its_tag_and_others_tags_are_left_alone():
    one, two = change(1, "1", why_is := "promoted"), dataclasses.replace(change(2, "2"), why="größer, „besser“\n二")
    tags = {TAG + two.key: two.to_text(), TAG + one.key: one.to_text(), "other": "x", TAG + "3": "not ours"}
    assert read(tags) == [one, two]
    assert why_is == one.kind


def test_a_history_that_agrees_is_left_as_it_is():
    changes = [change(1, "1"), change(2, "3")]
    found = settled(changes, "3", NOW)
    assert found.changes == tuple(changes)
    assert found.to_write == found.to_remove == ()


def test_no_history_and_no_champion_agree():
    assert settled([], None, NOW).changes == ()


def test_a_promotion_that_died_before_the_alias_moved_never_was():
    begun = change(2, "2", is_done=False)
    found = settled([change(1, "1"), begun], "1", NOW)
    assert versions(found.changes) == ["1"]
    assert found.to_remove == (begun,)


def test_a_promotion_that_died_after_the_alias_moved_was_made():
    begun = change(2, "2", is_done=False)
    found = settled([change(1, "1"), begun], "2", NOW)
    assert versions(found.changes) == ["1", "2"]
    assert [each.kind for each in found.changes] == ["promoted", "promoted"]
    assert found.to_write == (dataclasses.replace(begun, is_done=True),)


def test_an_alias_that_was_moved_by_hand_is_entered():
    found = settled([change(1, "1"), change(2, "2")], "1", NOW)
    assert versions(found.changes) == ["1", "2", "1"]
    assert found.changes[-1].kind == "by hand"
    assert found.to_write == found.changes[-1:]
    assert versions(settled([change(1, "1")], None, NOW).changes) == ["1", None], "and one that was deleted"


def test_a_begun_promotion_does_not_claim_what_is_so_already():
    """It died before anything moved, to a version that was champion again since."""
    begun = change(2, "1", is_done=False)
    found = settled([change(1, "1"), begun], "1", NOW)
    assert versions(found.changes) == ["1"]
    assert found.to_remove == (begun,)


@pytest.mark.parametrize(
    ("history", "there", "before"),
    [
        ([("1", "registered"), ("2", "registered")], "12", "1"),
        ([("1", "registered")], "1", None),
        ([], "", None),
        ([("1", "registered"), ("2", "registered"), ("3", "promoted"), ("2", "rolled back")], "123", "1"),
        ([("1", "registered"), ("2", "registered"), ("1", "rolled back"), ("3", "promoted")], "123", "1"),
        ([("1", "registered"), ("2", "registered"), ("3", "promoted")], "13", "1"),  # 2 was deleted
        ([("1", "registered"), ("2", "registered"), (None, "by hand")], "12", "2"),
        ([("1", "registered"), ("2", "registered"), ("1", "by hand")], "12", "2"),
    ],
)
def test_a_rollback_goes_to_the_champion_before(history, there, before):
    changes = [change(number, version, kind) for number, (version, kind) in enumerate(history)]
    assert champion_before(changes, set(there)) == before


class Registry:
    """An alias and tags, and processes that die between any two writes."""

    def __init__(self, draws):
        self.draws, self.champion, self.tags, self.number = draws, None, {}, 0
        self.moves = []
        """Every champion that there was, in order, and whether we moved it there."""

    def now(self):
        self.number += 1
        return dataclasses.replace(NOW, key=f"{self.number:08d}")

    def move(self, version, by_hand):
        if version != self.champion:
            self.champion = version
            self.moves.append((version, by_hand))

    def settle(self):
        found = settled(read(self.tags), self.champion, self.now())
        for each in found.to_remove:
            del self.tags[TAG + each.key]
        for each in found.to_write:
            self.tags[TAG + each.key] = each.to_text()
        return found.changes

    def promote(self, version, dies_after):
        """The writes of a promotion, up to one of them."""
        if dies_after == 0:
            return
        changes = self.settle()
        if dies_after == 1 or (changes and changes[-1].version == version):
            return
        one = dataclasses.replace(self.now(), kind="promoted", version=version)
        self.tags[TAG + one.key] = one.to_text()
        if dies_after == 2:
            return
        self.move(version, by_hand=False)
        if dies_after > 3:
            self.tags[TAG + one.key] = dataclasses.replace(one, is_done=True).to_text()


@pytest.mark.parametrize("seed", range(300))
def test_whenever_a_process_dies_history_and_alias_agree(seed):
    draws = random.Random(seed)
    registry = Registry(draws)
    for _ in range(draws.randrange(1, 25)):
        if draws.random() < 0.25:
            registry.settle()
            registry.move(draws.choice(["1", "2", "3", None]), by_hand=True)
        else:
            registry.promote(draws.choice("123"), draws.choice([0, 1, 2, 3, 4, 4, 4]))
        changes = settled(read(registry.tags), registry.champion, registry.now()).changes
        assert (changes[-1].version if changes else None) == registry.champion
    changes = registry.settle()
    told = [(each.version, each.kind == "by hand") for each in changes]
    assert told == registry.moves
