import time

import pytest
from fake_cluster import versions_here

from pipeline.cluster import this_laptop
from pipeline.errors import MachineUnfitError
from tuning.cluster.ports import Ports
from tuning.errors import CapDoesNotFitError


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A stand-in for the child that knows the facts."""

    def write(text):
        (tmp_path / "facts_child.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(this_laptop, "_FACTS", "facts_child")

    return write


def test_the_facts_are_what_the_child_says(child):
    child("import sys; sys.stderr.write('warned'); print('{\"precision\": \"bf16\"}')")
    with this_laptop.Facts() as facts:
        assert facts.result() == {"precision": "bf16"}


def test_a_laptop_without_torch_is_told_in_one_line(child):
    child("raise ImportError('no torch')")
    with (
        this_laptop.Facts() as facts,
        pytest.raises(MachineUnfitError, match="ImportError: no torch; `seqpipe doctor`"),
    ):
        facts.result()


def test_a_child_that_hangs_is_given_up_and_one_that_is_not_needed_ends(child, monkeypatch):
    child("import time; time.sleep(60)")
    monkeypatch.setattr(this_laptop, "_FACTS_S", 0.2)
    began = time.monotonic()
    with this_laptop.Facts() as facts, pytest.raises(MachineUnfitError, match="no answer within 0 s"):
        facts.result()
    with this_laptop.Facts():
        pass
    assert time.monotonic() - began < 10


def test_the_plan_is_what_the_laptop_gives():
    plan = this_laptop.plan("b", Ports(7000), 600, {"precision": "fp32"})
    assert (plan.name, plan.ports.base, plan.reserve_mb, plan.facts["precision"]) == ("b", 7000, 600, "fp32")
    assert plan.versions == versions_here()
    assert plan.code_now() == plan.versions.code
    assert plan.keeps_files_in.is_dir()
    usual = this_laptop.plan("b", Ports(), None, {})
    assert usual.reserve_mb >= 512
    assert usual.cores >= 1
    record = this_laptop.record(plan, "10.0.0.2")
    assert (record.gives_mb, record.reserve_mb, record.cores) == (plan.gives_mb, 600, plan.cores)
    assert abs(record.clock - time.time()) < 5
    assert record.free_mb > 0


def test_a_reserve_beyond_the_laptop_s_memory_is_refused():
    with pytest.raises(CapDoesNotFitError):
        this_laptop.plan("b", Ports(), 10**9, {})


def test_disk_is_that_of_the_cache_folder_or_of_what_there_is_of_its_path():
    assert this_laptop.disk_free_mb() > 0
