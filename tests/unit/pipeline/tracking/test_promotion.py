"""Who becomes champion and challenger, and when the tags say that two versions cannot be compared."""

import pytest

from pipeline.tracking.promotion import Ruling, Standing, Version, promote


class Gate:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, promotes: bool = True) -> None:
        self.promotes, self.reasons = promotes, []

    def __call__(self, standing: Standing, reason: str) -> Ruling:
        self.reasons.append(reason)
        return Ruling(self.promotes and not reason, not_compared=reason)


def version(number: int = 1, *, key: str = "old", test_hash: str | None = "t00", **tags: str) -> Version:
    given = {"seqpipe.register_key": key, **tags}
    return Version(number, given if test_hash is None else given | {"test_hash": test_hash})


def contender(number: int = 2, key: str = "new", **tags: str) -> Version:
    return version(number, key=key, **tags)


def test_the_first_version_gets_both_aliases_if_the_gate_lets_it():
    for promotes in (True, False):
        promotion = promote(Standing(contender(), None, None), Gate(promotes), {})
        assert (promotion.to_challenger, promotion.to_champion) == (True, promotes)


@pytest.mark.parametrize("promotes", [True, False])
def test_the_gate_says_whether_a_version_takes_the_champions_place(promotes):
    gate = Gate(promotes)
    promotion = promote(Standing(contender(), version(), version()), gate, {})
    assert promotion.to_champion == promotes
    assert promotion.ruling == Ruling(promotes)
    assert gate.reasons == [""]


@pytest.mark.parametrize(("number", "newest"), [(2, True), (1, False), (3, False)])
def test_the_newest_version_is_the_challenger(number, newest):
    other = {2: 1, 1: 1, 3: 4}[number]
    assert promote(Standing(contender(number), version(), version(other)), Gate(), {}).to_challenger == newest


def test_a_champion_that_was_tested_on_other_images_stays_and_it_is_said_why():
    promotion = promote(Standing(contender(), version(test_hash="t99"), None), Gate(), {})
    assert not promotion.to_champion
    assert promotion.ruling == Ruling(False, not_compared="the champion, version 1, was judged on other test images")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"d00": "t00"}, ""),
        ({"d00": "t99"}, "the champion, version 1, was judged on other test images"),
        ({}, "the champion, version 1, does not say on which test images it was judged"),
    ],
)
def test_the_test_images_of_an_earlier_releases_champion_are_known_from_its_data(known, reason):
    gate = Gate()
    promote(Standing(contender(), version(test_hash=None, data_hash="d00"), None), gate, known)
    assert gate.reasons == [reason]


def test_what_a_champion_says_of_its_test_images_counts_more_than_what_its_data_say():
    gate = Gate()
    promote(Standing(contender(), version(data_hash="d00"), None), gate, {"d00": "t99"})
    assert gate.reasons == [""]


@pytest.mark.parametrize(("number", "wins"), [(2, True), (1, False)])
def test_a_newer_version_of_the_same_model_takes_its_place_without_asking_the_gate(number, wins):
    """Its files were lost, and it was registered again."""
    gate = Gate(False)
    same = version(1, key="new", test_hash="t99")
    promotion = promote(Standing(contender(number), same, same), gate, {})
    assert (promotion.to_champion, promotion.ruling, gate.reasons) == (wins, None, [])
