from dataclasses import replace

import pytest

from tuning.cluster.comparison import Reach, compare, refused
from tuning.cluster.node_record import NodeRecord
from tuning.cluster.versions import Versions

VERSIONS = Versions("3.12.3", "2.60.0", "2.13.0", "cafe")
HEAD = NodeRecord("a", "10.0.0.1", is_head=True, gives_mb=5000, versions=VERSIONS, facts={"precision": "bf16"})
HERE = NodeRecord("b", "10.0.0.2", gives_mb=3000, versions=VERSIONS, facts={"precision": "bf16"})


def lines(here=HERE, **changes):
    known = {"clock_off_s": 0.4, "disk_free_mb": 20_000.0, "reach": Reach()} | changes
    return {line.what: line for line in compare(here, HEAD, **known)}


def with_versions(**changes):
    return replace(HERE, versions=replace(VERSIONS, **changes))


def test_two_laptops_that_are_alike_differ_in_nothing():
    found = lines()
    assert {line.verdict for line in found.values()} == {"same"}
    assert {line.advice for line in found.values()} == {""}
    assert list(found) == [
        "Python", "Ray", "code", "torch", "clock", "ports there", "ports here", "memory for trials", "free disk",
        "precision",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("here", "what", "verdict", "advice"),
    [
        (with_versions(python="3.12.9"), "Python", "said", "the patch release may differ"),
        (with_versions(python="3.13.3"), "Python", "refused", "install Python 3.12 here"),
        (with_versions(ray="2.60.1"), "Ray", "refused", "install ray==2.60.0 here"),
        (with_versions(ray=""), "Ray", "refused", "install ray==2.60.0 here"),
        (with_versions(code="beef"), "code", "refused", "bring both laptops to the same commit, without changes"),
        (with_versions(torch="2.13.1"), "torch", "said", "trials of the two may differ in the last bits"),
        (replace(HERE, gives_mb=399), "memory for trials", "refused", "at least 400 MB; close other programs here"),
        (replace(HERE, facts={"precision": "fp32"}), "precision", "said", ""),
    ],
)
def test_what_may_differ_is_said_and_the_rest_refused(here, what, verdict, advice):
    found = lines(here)
    assert (found[what].verdict, found[what].advice) == (verdict, advice)
    assert {name for name, line in found.items() if line.verdict != "same"} == {what}
    assert [line.what for line in refused(list(found.values()))] == ([what] if verdict == "refused" else [])


@pytest.mark.parametrize(
    ("off_s", "verdict", "said"),
    [
        (2.0, "same", "-"),
        (3.0, "said", "3 s behind"),
        (-299.0, "said", "299 s ahead"),
        (-3600, "refused", "3600 s ahead"),
    ],
)
def test_clocks_that_differ_are_said_and_an_hour_is_too_much(off_s, verdict, said):
    line = lines(clock_off_s=off_s)["clock"]
    assert (line.verdict, line.here) == (verdict, said)


def test_a_firewall_on_either_side_is_refused_and_named():
    found = lines(reach=Reach(unreachable_there=(6481, 6482, 6490)))
    assert (found["ports there"].there, found["ports there"].verdict) == ("6481-6482, 6490 blocked", "refused")
    assert "the other laptop's firewall" in found["ports there"].advice
    found = lines(reach=Reach(unreachable_here=(6481,)))
    assert (found["ports here"].here, found["ports here"].verdict) == ("6481 blocked", "refused")
    assert "this laptop's firewall" in found["ports here"].advice
    assert "30 s" in found["ports here"].advice
    assert found["ports there"].verdict == "same"


def test_ports_that_were_not_tried_are_not_claimed():
    assert not {"ports there", "ports here"} & set(lines(reach=None))


def test_a_disk_that_is_nearly_full_is_refused():
    line = lines(disk_free_mb=120.0)["free disk"]
    assert (line.here, line.there, line.verdict) == ("120 MB", "-", "refused")
    assert "free some space" in line.advice
