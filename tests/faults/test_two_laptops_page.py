"""The commands of docs/two-laptops.md, typed on two laptops of namespaces, in the order in which they stand there."""

import json
import re

import pytest
from cluster_of_laptops import Cluster, quiet_within, separate
from laptop import REPOSITORY, why_not
from product import SEQPIPE, settings, tiny

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
PAGE = (REPOSITORY / "docs" / "two-laptops.md").read_text()
PROGRAM, ADDRESS = ".venv/bin/seqpipe", "192.168.1.10"
SMALL = [*tiny("medium", train__batch_size=4, data__fraction=0.5)[2:], *settings(train__epochs=4)]
"""What makes a search or a training of medium take seconds."""


def commands(section: str) -> list[str]:
    """What a section of the page says to type, without the words that explain it."""
    [text] = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = re.findall(rf"^    {re.escape(PROGRAM)} (.*)$", text, re.MULTILINE)
    return [re.split(r"\s{3,}", line)[0].strip() for line in lines]


@pytest.fixture
def two(tmp_path):
    with separate(tmp_path) as made:
        yield made


def typed(two: Cluster, command: str, *more: str) -> list[str]:
    """A command of the page, with the address that A has here, and what makes it small."""
    return [SEQPIPE, *command.replace(ADDRESS, two.a.address).split(), *more]


def test_two_laptops_search_and_train_as_the_page_says(two):
    up, join, tune, status, leave, down = commands("From two clones to a finished search")
    [train] = commands("One training on the other laptop")

    head = two.a.start(*typed(two, up))
    head.wait_for(lambda: two.code_file.exists() and f"cluster join {two.a.address}" in head.out, 120, 0.2)
    assert two.code in head.out
    assert "6480-6589" in head.out
    assert "6480 to 6589" in PAGE
    member = two.b.terminal(*typed(two, join))
    member.wait_until_said("join code")
    member.type(f"{two.code}\n")
    member.wait_for(lambda: two.is_ready(two.b.name), 120, 0.2)

    bounds = ["--space", "space.yaml", "--scheduler", "none", "--trials", "6"]
    search = two.a.start(*typed(two, tune, *SMALL, *settings(train__epochs=12), *bounds))
    search.wait_for(lambda: two.row_on(two.b) is not None, 180, 0.2)
    shown = two.a.run(*typed(two, status))
    assert shown.code == 0, shown.err
    assert {two.a.name, two.b.name} <= set(re.findall(r"laptop-[ab]", shown.out))
    done = search.wait(300)
    assert done.code == 0, done.err
    assert [one["outcome"] for one in two.of("finished")] == 6 * ["completed"]
    assert {one["node"] for one in two.of("started")} == {two.a.name, two.b.name}
    assert list(two.a.work.glob(".seqpipe/searches/*/best.yaml"))

    done = two.a.run(*typed(two, train, *SMALL), timeout_s=300)
    assert done.code == 0, done.err
    [manifest] = (two.a.work / ".seqpipe" / "stages" / "train").glob("*/manifest.json")
    assert json.loads(manifest.read_bytes())["result"]["model"] == "medium"

    done = two.a.run(*typed(two, leave), timeout_s=90)
    assert done.code == 0, done.err
    assert member.wait(30).code == 0
    assert quiet_within(two.b, 20) < 20
    assert two.a.run(*typed(two, down), timeout_s=90).code == 0
    assert head.wait(30).code == 0
    assert quiet_within(two.a, 20) < 20


def test_every_command_of_the_page_is_one_of_the_program():
    every = re.findall(rf"^    {re.escape(PROGRAM)} (.*)$", PAGE, re.MULTILINE)
    assert {" ".join(re.split(r"\s{3,}", line)[0].split()[:2]) for line in every} == {
        "cluster up", "cluster join", "cluster status", "cluster leave", "cluster down", "tune --model", "run train",
    }  # fmt: skip
