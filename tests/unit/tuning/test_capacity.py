import pytest

from tuning import capacity
from tuning.capacity import WORKER_MB, Node, capacity_of
from tuning.errors import CapDoesNotFitError, ClusterError

LAPTOPS = [Node("one", 4, 5000), Node("two", 2, 3000)]


def test_as_many_trials_run_as_memory_and_cores_hold():
    assert capacity_of(LAPTOPS, 1000, None, 1.0).fits == (4, 2)
    assert capacity_of(LAPTOPS, 2000, None, 1.0).fits == (2, 1)
    assert capacity_of(LAPTOPS, 2000, None, 1.0).concurrency == 3
    assert capacity_of(LAPTOPS, 1000, None, 2.0).fits == (2, 1)
    assert capacity_of(LAPTOPS, 1000, 2, 1.0).concurrency == 2
    assert capacity_of(LAPTOPS, 4000, 2, 1.0).fits == (1, 0)
    assert capacity_of(LAPTOPS, 4000, 2, 1.0).concurrency == 1


def test_what_ray_is_asked_for_covers_the_worker():
    assert capacity_of(LAPTOPS, 1000, None, 1.0).request_bytes == (1000 + WORKER_MB) * 1_000_000


@pytest.mark.parametrize(("concurrency", "fits"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1)), (6, (4, 2)), (99, (4, 2))])
def test_without_a_cap_it_is_the_largest_at_which_the_wished_trials_fit(concurrency, fits):
    found = capacity_of(LAPTOPS, None, concurrency, 1.0)
    assert found.fits == fits
    try:
        with_more = sum(capacity_of(LAPTOPS, found.cap_mb + 1, concurrency, 1.0).fits)
    except CapDoesNotFitError:
        with_more = 0
    assert with_more < sum(fits)


@pytest.mark.parametrize(("memory_mb", "fits"), [(3500, 2), (2500, 1), (1000, 1), (20000, 8)])
def test_fewer_trials_run_rather_than_trials_with_too_little(memory_mb, fits):
    laptop = [Node("laptop", 8, memory_mb)]
    found = capacity_of(laptop, None, None, 1.0, least_mb=1500)
    assert (found.concurrency, found.cap_mb) == (fits, memory_mb // fits - WORKER_MB)
    assert capacity_of(laptop, None, 4, 1.0, least_mb=1500).concurrency == 4, "asked for"
    assert capacity_of(laptop, 200, None, 1.0, least_mb=1500).cap_mb == 200, "asked for"


def test_a_cap_that_no_node_can_grant_is_refused_with_the_largest_that_fits():
    with pytest.raises(CapDoesNotFitError, match=f"{5000 - WORKER_MB} MB") as caught:
        capacity_of(LAPTOPS, 9000, None, 1.0)
    largest = caught.value.largest_mb
    assert capacity_of(LAPTOPS, largest, None, 1.0).fits == (1, 0)


def test_a_machine_without_memory_is_refused():
    with pytest.raises(CapDoesNotFitError, match="no node has memory for a trial now") as caught:
        capacity_of([Node("full", 2, 0)], None, None, 1.0)
    assert caught.value.largest_mb == 0


def test_more_cores_than_any_node_has_are_refused():
    with pytest.raises(ClusterError, match="8 cores"):
        capacity_of(LAPTOPS, 100, None, 8)


def test_the_reserve_is_left_to_the_system():
    free, kept = capacity.this_machine(0), capacity.this_machine(1000)
    assert 500 <= free.memory_mb - kept.memory_mb <= 1500
    assert capacity.this_machine(10**9).memory_mb == 0
