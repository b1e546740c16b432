import pytest

from tuning import capacity, machine
from tuning.capacity import RAY_MB, WORKER_MB, Node, capacity_of, trials_at_once
from tuning.errors import CapDoesNotFitError, ClusterError

LAPTOPS = [Node("one", 4, 5000), Node("two", 2, 3000)]


def fitted(nodes, cap_mb, concurrency, cpus_per_trial, least_mb=0):
    return capacity_of(nodes, cap_mb, concurrency, cpus_per_trial, least_mb)


def test_as_many_trials_run_as_memory_and_cores_hold():
    assert fitted(LAPTOPS, 1000, None, 1.0).fits == (4, 2)
    assert fitted(LAPTOPS, 2000, None, 1.0).fits == (2, 1)
    assert fitted(LAPTOPS, 2000, None, 1.0).concurrency == 3
    assert fitted(LAPTOPS, 1000, None, 2.0).fits == (2, 1)
    assert fitted(LAPTOPS, 1000, 2, 1.0).concurrency == 2
    assert fitted(LAPTOPS, 4000, 2, 1.0).fits == (1, 0)
    assert fitted(LAPTOPS, 4000, 2, 1.0).concurrency == 1


@pytest.mark.parametrize(
    ("node", "cap_mb", "cpus", "count"),
    [
        (Node("here", 8, 3 * (900 + WORKER_MB)), 900, 1.0, 3),
        (Node("here", 8, 3 * (900 + WORKER_MB) - 1), 900, 1.0, 2),
        (Node("here", 2, 100_000), 900, 1.0, 2),
        (Node("here", 7, 100_000), 900, 2.0, 3),
        (Node("here", 8, 0), 900, 1.0, 0),
        (Node("here", 8, -5000), 900, 1.0, 0),
    ],
)
def test_a_node_holds_as_many_trials_as_its_memory_and_its_cores_allow(node, cap_mb, cpus, count):
    assert trials_at_once(node, cap_mb, cpus) == count


def test_what_ray_is_asked_for_covers_the_worker():
    assert fitted(LAPTOPS, 1000, None, 1.0).request_bytes == (1000 + WORKER_MB) * 1_000_000


@pytest.mark.parametrize(("concurrency", "fits"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1)), (6, (4, 2)), (99, (4, 2))])
def test_without_a_cap_it_is_the_largest_at_which_the_wished_trials_fit(concurrency, fits):
    found = fitted(LAPTOPS, None, concurrency, 1.0)
    assert found.fits == fits
    try:
        with_more = sum(fitted(LAPTOPS, found.cap_mb + 1, concurrency, 1.0).fits)
    except CapDoesNotFitError:
        with_more = 0
    assert with_more < sum(fits)


@pytest.mark.parametrize(("memory_mb", "fits"), [(3500, 2), (2500, 1), (1000, 1), (20000, 8)])
def test_fewer_trials_run_rather_than_trials_with_too_little(memory_mb, fits):
    laptop = [Node("laptop", 8, memory_mb)]
    found = fitted(laptop, None, None, 1.0, least_mb=1500)
    assert (found.concurrency, found.cap_mb) == (fits, memory_mb // fits - WORKER_MB)
    assert fitted(laptop, None, 4, 1.0, least_mb=1500).concurrency == 4, "asked for"
    assert fitted(laptop, 200, None, 1.0, least_mb=1500).cap_mb == 200, "asked for"


def test_a_cap_that_no_node_can_grant_is_refused_with_the_largest_that_fits():
    with pytest.raises(CapDoesNotFitError, match=f"{5000 - WORKER_MB} MB") as caught:
        fitted(LAPTOPS, 9000, None, 1.0)
    largest = caught.value.largest_mb
    assert fitted(LAPTOPS, largest, None, 1.0).fits == (1, 0)


def test_a_machine_without_memory_is_refused():
    with pytest.raises(CapDoesNotFitError, match="no node has memory for a trial now") as caught:
        fitted([Node("full", 2, 0)], None, None, 1.0)
    assert caught.value.largest_mb == 0


def test_more_cores_than_any_node_has_are_refused():
    with pytest.raises(ClusterError, match="8 cores"):
        fitted(LAPTOPS, 100, None, 8)


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "given_mb"),
    [
        (20_000, 10_000, 10_000 - RAY_MB - 2000),
        (4000, 3000, 3000 - RAY_MB - 512),
        (4000, 1000, 0),
    ],
)
def test_ray_and_the_system_keep_their_share_of_this_machine(monkeypatch, total_mb, free_mb, given_mb):
    here = machine.Machine(total_mb * 10**6, free_mb * 10**6, 2.5)
    monkeypatch.setattr(machine, "this_machine", lambda: here)
    assert capacity.this_machine().memory_mb == given_mb
    assert capacity.this_machine().cpus == 2, "whole cores"


def test_the_reserve_may_be_asked_for_and_must_leave_something_of_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "this_machine", lambda: machine.Machine(8000 * 10**6, 7000 * 10**6, 2))
    assert capacity.this_machine(3000).memory_mb == 7000 - RAY_MB - 3000
    assert capacity.this_machine(7999).memory_mb == 0
    with pytest.raises(CapDoesNotFitError, match="a reserve of 8000 MB leaves nothing of this machine's 8000 MB"):
        capacity.this_machine(8000)
