import pytest

from pipeline.config.schema import ComputeConfig
from pipeline.training import memory_limit
from pipeline.training.memory_limit import Limit, limit_of
from tuning.machine import Machine

HELD_MB = 300.0


@pytest.fixture
def here(monkeypatch):
    """Sets what this machine is."""

    def here(machine):
        monkeypatch.setattr(memory_limit.machine, "this_machine", lambda: machine)

    monkeypatch.setattr(memory_limit, "tree_memory_mb", lambda pid: HELD_MB)
    here(Machine(8 * 10**9, 5 * 10**9, 4.0))
    return here


def test_a_cap_comes_first_on_every_device(here):
    here(Machine(8 * 10**9, 5 * 10**9, 4.0, memory_limit_bytes=8 * 10**9))
    for device in ("cpu", "cuda", "mps"):
        assert limit_of(ComputeConfig(max_memory_mb=1000), device) == Limit(1000, "cap")


@pytest.mark.usefixtures("here")
def test_an_accelerator_has_no_limit_without_a_cap():
    assert limit_of(ComputeConfig(), "cuda") is None


def test_in_a_container_it_is_what_the_limit_leaves_and_what_this_process_holds(here):
    here(Machine(8 * 10**9, 5 * 10**9, 4.0, memory_limit_bytes=8 * 10**9))
    assert limit_of(ComputeConfig(), "cpu") == Limit(5000 + HELD_MB, "container")


@pytest.mark.usefixtures("here")
def test_else_it_is_what_is_free_less_a_little():
    assert limit_of(ComputeConfig(), "cpu") == Limit(5000 - 160 + HELD_MB, "free")


def test_a_limit_in_words():
    assert [Limit(1000.4, kind).in_words() for kind in ("cap", "container", "free", "trial")] == [
        "1000 MB (--max-memory-mb)", "1000 MB (the container's limit)", "1000 MB that are free now", "1000 MB"
    ]  # fmt: skip
