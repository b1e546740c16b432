"""Who becomes champion and challenger, and when two versions are not compared."""

import pytest

from pipeline.tracking.promotion import Contender, Holder, promote


def contender(accuracy: float = 0.8, *, version: int = 2, key: str = "new", **earlier: str) -> Contender:
    return Contender(version, key, accuracy, "t00", earlier_test_hashes=earlier)


def holder(accuracy: object = 0.8, *, version: int = 1, key: str = "old", test_hash: str | None = "t00", **tags: str):
    given = {"seqpipe.register_key": key, "test_accuracy": str(accuracy), **tags}
    return Holder(version, given if test_hash is None else given | {"test_hash": test_hash})


def test_the_first_version_gets_both_aliases():
    promotion = promote(contender(), champion=None, challenger=None)
    assert (promotion.to_challenger, promotion.to_champion, promotion.not_compared) == (True, True, "")


@pytest.mark.parametrize(("accuracy", "wins"), [(0.81, True), (0.8, False), (0.79, False)])
def test_only_a_better_one_becomes_champion_and_a_tie_keeps_the_present_one(accuracy, wins):
    promotion = promote(contender(accuracy), holder(0.8), holder(0.8))
    assert (promotion.to_champion, promotion.not_compared) == (wins, "")


@pytest.mark.parametrize(("version", "newest"), [(2, True), (1, False), (3, False)])
def test_the_newest_version_is_the_challenger(version, newest):
    other = {2: 1, 1: 1, 3: 4}[version]
    assert promote(contender(version=version), holder(), holder(version=other)).to_challenger == newest


def test_a_champion_that_was_tested_on_other_images_stays_and_it_is_said_why():
    promotion = promote(contender(0.9), holder(0.1, test_hash="t99"), None)
    assert not promotion.to_champion
    assert promotion.not_compared == "the champion, version 1, was judged on other test images"


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"d00": "t00"}, ""),
        ({"d00": "t99"}, "the champion, version 1, was judged on other test images"),
        ({}, "the champion, version 1, does not say on which test images it was judged"),
    ],
)
def test_the_test_images_of_an_earlier_releases_champion_are_known_from_its_data(known, reason):
    promotion = promote(contender(0.9, **known), holder(0.8, test_hash=None, data_hash="d00"), None)
    assert (promotion.not_compared, promotion.to_champion) == (reason, not reason)


def test_what_a_champion_says_of_its_test_images_counts_more_than_what_its_data_say():
    promotion = promote(contender(0.9, d00="t99"), holder(0.8, data_hash="d00"), None)
    assert (promotion.not_compared, promotion.to_champion) == ("", True)


def test_a_champion_without_a_readable_accuracy_stays_and_it_is_said_why():
    promotion = promote(contender(0.9), holder("eighty"), None)
    assert not promotion.to_champion
    assert promotion.not_compared == "the champion, version 1, does not say its test accuracy"


def test_a_champion_whose_accuracy_is_not_a_number_is_worse_than_any():
    assert promote(contender(0.1), holder("nan"), None).to_champion


@pytest.mark.parametrize(("version", "wins"), [(2, True), (1, False)])
def test_a_newer_version_of_the_same_model_takes_its_place_whatever_was_tested(version, wins):
    """Its files were lost, and it was registered again."""
    same = holder("eighty", version=1, key="new", test_hash="t99")
    promotion = promote(contender(0.1, version=version), same, same)
    assert (promotion.to_champion, promotion.not_compared) == (wins, "")
