from pipeline.promotion.test_set_use import decisions_before

OWN = {"test_hash": "t0" * 16}


def version(*, decision=None, against=None, test_hash=OWN["test_hash"], **tags):
    given = {"test_hash": test_hash, "gate_decision": decision, "gate_champion": against, **tags}
    return {key: str(value) for key, value in given.items() if value is not None}


def before(*others, own=OWN, model=None, against=1):
    return decisions_before(own, others, model or {}, against=against)


def test_the_first_comparison_on_test_images_has_none_before_it():
    assert before(version(decision=0)) == 0


def test_decisions_are_counted_at_the_versions():
    assert before(version(decision=0), version(decision=1, against=1), version(decision=2, against=1)) == 2


def test_decisions_on_other_test_images_do_not_count():
    assert before(version(decision=0), version(decision=5, against=1, test_hash="other")) == 0


def test_a_version_that_was_deleted_by_hand_still_counts():
    tag = f"gate_decisions_{OWN['test_hash'][:16]}"
    assert before(version(decision=0), model={tag: "4"}) == 4
    assert before(version(decision=0), model={"gate_decisions_other": "4"}) == 0


def test_a_repeated_decision_keeps_its_number_and_one_against_another_champion_is_new():
    own = version(decision=2, against=1)
    others = [version(decision=0), version(decision=1, against=1), version(decision=3, against=1)]
    assert before(*others, own=own) == 1
    assert before(*others, own=own, against=4) == 3


def test_comparisons_of_earlier_releases_count_but_for_their_first_version_and_those_not_compared():
    earlier = [version(), version(), version(), version(not_compared="other images")]
    assert before(*earlier) == 2
    assert before(*earlier, version(decision=5, against=1)) == 5


def test_what_is_no_number_counts_for_nothing():
    assert before(version(decision="many"), own=version(decision="-1", against=1)) == 0
