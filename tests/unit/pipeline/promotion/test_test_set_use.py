import random
import threading

import pytest

from pipeline.promotion.test_set_use import CountedDecision
from pipeline.tracking.registry_names import REGISTER_KEY_TAG

HASH = "t0" * 16
OWN = {"test_hash": HASH, REGISTER_KEY_TAG: "own"}
PREFIX = f"gate_decisions_{HASH[:16]}"


def version(*, decision=None, against=None, test_hash=HASH, **tags):
    given = {"test_hash": test_hash, "gate_decision": decision, "gate_champion": against, **tags}
    return {key: str(value) for key, value in given.items() if value is not None}


def number(*others, own=OWN, model=None, against=1):
    return CountedDecision(9, own, against, {}, others).number(model or {})


def test_the_first_comparison_on_test_images_has_none_before_it():
    assert number(version(decision=0)) == 1


def test_decisions_are_counted_at_the_versions():
    assert number(version(decision=0), version(decision=1, against=1), version(decision=2, against=1)) == 3


def test_decisions_on_other_test_images_do_not_count():
    assert number(version(decision=0), version(decision=5, against=1, test_hash="other")) == 1


def test_a_version_that_was_deleted_by_hand_still_counts():
    assert number(version(decision=0), model={f"{PREFIX}.k2.k1": "4"}) == 5
    assert number(version(decision=0), model={PREFIX: "4"}) == 5, "as it was counted at first"
    assert number(version(decision=0), model={"gate_decisions_other.k2.k1": "4"}) == 1


def test_a_repeated_decision_keeps_its_number_and_one_against_another_champion_is_new():
    own = version(decision=2, against=1)
    others = [version(decision=0), version(decision=1, against=1), version(decision=3, against=1)]
    assert number(*others, own=own) == 2
    assert number(*others, own=own, against=4) == 4


def test_a_decision_that_was_killed_once_it_had_its_number_keeps_it():
    assert number(version(decision=3, against=1), model={f"{PREFIX}.own.1": "2", f"{PREFIX}.k2.1": "3"}) == 2


def test_mirrored_views_count_once_with_the_plain_ones_of_the_same_images():
    """They are a version of their own, whose decision is the next one on these images, and one more, not two."""
    plain = version(decision=1, against=1, **{REGISTER_KEY_TAG: "k2"})
    mirrored = {"test_hash": HASH, REGISTER_KEY_TAG: "k2-mirrored"}
    model = {f"{PREFIX}.k2.k1": "1"}
    use = CountedDecision(3, mirrored, 1, {REGISTER_KEY_TAG: "k1"}, [version(decision=0), plain])
    assert use.take_number(model, lambda key, value: model.setdefault(key, value) and model) == 2
    assert model == {f"{PREFIX}.k2.k1": "1", f"{PREFIX}.k2-mirrored.k1": "2"}


def test_a_number_of_a_version_that_is_given_anew_is_another_decision():
    """MLflow gives a new version the number of the last one, if that was deleted."""
    model = {f"{PREFIX}.deleted.k1": "1"}
    assert CountedDecision(2, OWN, 1, {REGISTER_KEY_TAG: "k1"}, []).number(model) == 2


def test_comparisons_of_earlier_releases_count_but_for_their_first_version_and_those_not_compared():
    earlier = [version(), version(), version(), version(not_compared="other images")]
    assert number(*earlier) == 3
    assert number(*earlier, version(decision=5, against=1)) == 6


def test_what_is_no_number_counts_for_nothing():
    assert number(version(decision="many"), own=version(decision="-1", against=1)) == 1


class Server:
    """Tags that several laptops write and read, one at a time, in an order that a seed decides."""

    def __init__(self, seed):
        self.tags, self.draws = {}, random.Random(seed)
        self.turn, self.waiting = threading.Condition(), set()

    def step(self, act):
        """Do something when it is this thread's turn, once all that are at work wait for theirs."""
        with self.turn:
            self.waiting.add(threading.get_ident())
            self.turn.notify_all()
            self.turn.wait_for(lambda: self.chosen() == threading.get_ident())
            self.waiting.discard(threading.get_ident())
            self.next = None
            found = act()
            self.turn.notify_all()
            return found

    next = None
    working = 0

    def chosen(self):
        if self.next is None and len(self.waiting) == self.working:
            self.next = self.draws.choice(sorted(self.waiting))
            self.turn.notify_all()
        return self.next

    def write(self, key, value):
        self.step(lambda: self.tags.update({key: value}))
        return self.read()

    def read(self):
        return self.step(lambda: dict(self.tags))

    def leave(self):
        with self.turn:
            self.working -= 1
            self.turn.notify_all()


@pytest.mark.parametrize("laptops", [2, 3, 5])
def test_laptops_that_decide_at_once_never_take_one_number(laptops):
    for seed in range(60):
        server, taken = Server(seed), {}
        server.working = laptops

        def decide(name, server=server, taken=taken):
            use = CountedDecision(2, {"test_hash": HASH, REGISTER_KEY_TAG: name}, 1, {}, [])
            taken[name] = use.take_number(server.read(), server.write)
            server.leave()

        threads = [threading.Thread(target=decide, args=(f"k{one}",)) for one in range(laptops)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(set(taken.values())) == laptops == len(taken), (seed, taken)
        assert server.tags == {f"{PREFIX}.{name}.1": str(number) for name, number in taken.items()}
        assert max(taken.values()) <= 4 * laptops, "few numbers are left out"
