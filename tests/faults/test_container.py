"""Commands inside a control group with less than the machine has, as in a container (root only)."""

import json

import pytest
from control_groups import control_group
from product import settings, tiny


@pytest.fixture
def group():
    with control_group(2000, 0.5) as made:
        yield made


def test_a_search_is_planned_for_what_the_group_above_leaves(place, group):
    done = place.run("tune", *tiny(), "--dry-run", "--json", preexec_fn=group.enter)
    assert done.code == 0, done.err
    plan = json.loads(done.out)["plan"]
    [node] = plan["nodes"]
    assert node["cores"] == plan["concurrency"] == 1
    assert 0 < plan["trial_memory_mb"] < node["memory_mb"] < 2000 - 850


def test_doctor_says_what_the_group_leaves(place, group):
    done = place.run("doctor", preexec_fn=group.enter)
    assert "limited to 2 GB and 0.5 cores by a control group" in done.out
    assert "of 2000 MB available" in done.out
    assert "1 threads" in done.out


def test_a_search_runs_within_the_group(place, group):
    group.limit(3000, 1.0)
    done = place.run("tune", *tiny(train__epochs=1), "--trials", "1", preexec_fn=group.enter)
    assert done.code == 0, done.err


def test_a_training_that_the_group_cannot_hold_is_refused_before_it_starts(place, group):
    group.limit(500, 2.0)
    done = place.run("run", "train", *tiny(), preexec_fn=group.enter)
    assert done.code == 5
    assert "too few" in done.errors[0]
    assert "the container's limit" in done.errors[1]


def test_a_capped_command_that_the_group_kills_is_out_of_memory(place, group):
    group.limit(500, 2.0)
    whole_batches = settings(data__source="synthetic", compute__micro_batch_size=128)
    done = place.run(
        "run", "train", "--model", "small", *whole_batches, "--max-memory-mb", "4000", preexec_fn=group.enter
    )
    assert done.code == 5, done.err
    assert "this container's memory ran out" in done.errors[0]
