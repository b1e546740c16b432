import pytest

from pipeline.cluster.bound_address import SETTLED_S, BoundAddress
from tuning.cluster.addresses import InterfaceAddress

LO = InterfaceAddress("lo", "127.0.0.1")
OLD, NEW = InterfaceAddress("wlan0", "10.0.0.1"), InterfaceAddress("wlan0", "10.0.0.7")


class Laptop:
    """A laptop whose addresses change, and its clock."""

    def __init__(self, *found):
        self.found, self.now_s = [LO, *found], 100.0

    def read(self):
        return self.found

    def clock(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def laptop():
    return Laptop(OLD)


@pytest.fixture
def bound(laptop):
    return BoundAddress("10.0.0.1", laptop.read, laptop.clock, laptop.sleep)


def moved_within(laptop, bound, seconds):
    """Whether it counts as moved at some time within so long."""
    until = laptop.now_s + seconds
    while laptop.now_s < until:
        if bound.has_moved():
            return True
        laptop.now_s += 0.25
    return False


def test_an_address_that_stays_has_not_moved(laptop, bound):
    assert bound.is_here()
    assert not moved_within(laptop, bound, 60)
    laptop.found.append(NEW)
    assert not moved_within(laptop, bound, 60), "a second one beside it"
    assert bound.now() == "10.0.0.1"


def test_an_address_that_is_gone_for_a_while_has_not_moved(laptop, bound):
    laptop.found = [LO]
    assert not moved_within(laptop, bound, 600)
    assert not bound.is_here()
    assert bound.now() is None


def test_another_one_in_its_place_counts_once_it_has_settled(laptop, bound):
    laptop.found = [LO, NEW]
    assert not moved_within(laptop, bound, SETTLED_S)
    assert moved_within(laptop, bound, 4)
    laptop.found = [LO, OLD]
    assert bound.has_moved(), "it was decided"


def test_an_interim_address_starts_the_wait_anew(laptop, bound):
    laptop.found = [LO, InterfaceAddress("wlan0", "169.254.1.1")]
    assert not moved_within(laptop, bound, 8)
    laptop.found = [LO, NEW]
    assert not moved_within(laptop, bound, 8)
    laptop.found = [LO]
    assert not moved_within(laptop, bound, 8)
    laptop.found = [LO, NEW]
    assert not moved_within(laptop, bound, 8)
    assert moved_within(laptop, bound, 6)


@pytest.mark.parametrize(
    "other",
    [
        InterfaceAddress("eth0", "10.0.0.7"),
        InterfaceAddress("wlan0", "fd00::7"),
        InterfaceAddress("wlan0", "fe80::7"),
    ],
)
def test_only_the_same_interface_and_kind_of_address_takes_its_place(laptop, bound, other):
    laptop.found = [LO, other]
    assert not moved_within(laptop, bound, 60)
    assert bound.now() is None


def test_it_is_waited_for_until_there_is_one_or_somebody_asks_to_stop(laptop, bound):
    laptop.found = [LO]

    def comes_back():
        if laptop.now_s > 130:
            laptop.found = [LO, NEW]
        return False

    assert bound.wait(comes_back) == "10.0.0.7"
    laptop.found = [LO]
    assert bound.wait(lambda: laptop.now_s > 160) is None
    laptop.found = [LO, OLD]
    assert bound.wait(lambda: False) == "10.0.0.1"
