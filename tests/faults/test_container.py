"""Commands inside a control group with less than the machine has, as in a container (root only)."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from product import settings, tiny

ROOT = Path("/sys/fs/cgroup")
MB = 1_000_000


class Group:
    """A group with a limit, and one below it without, in which commands are run."""

    def __init__(self, name: str) -> None:
        self._has_one_tree = (ROOT / "cgroup.controllers").exists()
        trees = [ROOT] if self._has_one_tree else [ROOT / "memory", ROOT / "cpu"]
        if self._has_one_tree:
            (ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
        self._outer = [tree / name for tree in trees]
        self._inner = [outer / "inner" for outer in self._outer]
        for inner in self._inner:
            inner.mkdir(parents=True)

    def limit(self, memory_mb: int, cores: float) -> None:
        memory, cpu = self._outer[0], self._outer[-1]
        if self._has_one_tree:
            (memory / "memory.max").write_text(str(memory_mb * MB))
            (cpu / "cpu.max").write_text(f"{cores * 100000:.0f} 100000")
        else:
            (memory / "memory.limit_in_bytes").write_text(str(memory_mb * MB))
            (cpu / "cpu.cfs_quota_us").write_text(f"{cores * 100000:.0f}")

    def enter(self) -> None:
        """In the child, before the command."""
        for inner in self._inner:
            (inner / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        for folder in [*self._inner, *self._outer]:
            until = time.monotonic() + 5
            while folder.exists() and time.monotonic() < until:  # busy until its last process is buried
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.05)


@pytest.fixture
def group():
    made = None
    try:
        made = Group(f"seqpipe-test-{os.getpid()}")
        made.limit(2000, 0.5)
    except OSError as error:
        if made is not None:
            made.remove()
        pytest.skip(f"control groups cannot be made here: {error}")
    yield made
    made.remove()


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
    group.limit(600, 2.0)
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
