import json
from dataclasses import replace

import pytest

from pipeline.cli import cluster_view
from pipeline.cli.cluster_view import UpView, none_in_words, program_elsewhere, search_in_words, show_status
from pipeline.cluster.node_here import NodeHere
from pipeline.cluster.workspace_cluster import NONE_UP, ClusterAccess, HeadHere
from pipeline.workspace.paths import Workspace
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import OtherJoined
from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode

HERE = HeadHere("192.168.1.10", 7000, "a", 123, 4, 5000, 800)
ACCESS = ClusterAccess(HERE, JoinCode.new("PQRST"))
TRIALS = (TrialOnNode("medium-ab", 7, 2, 5, 0.5, 700, 900), TrialOnNode("medium-ab", 9, 0, 5, None, 300, 900))
A = NodeRecord("a", "192.168.1.10", is_head=True, cores=4, gives_mb=5000, clock=100.0, free_mb=3000, trials=TRIALS)
B = NodeRecord(
    "b", "192.168.1.11", cores=2, gives_mb=3000, clock=99.0, facts={"precision": "bf16", "kernel": "native"}
)


@pytest.fixture
def shown(tmp_path, capsys):
    """What a cluster shows once it is up."""

    def show(head=HERE, is_detached=False):
        view = UpView(Workspace(tmp_path), is_detached=is_detached, shows_code=True)
        view.sleep = "stays awake"
        view.up(replace(ACCESS, head=head))
        return capsys.readouterr().out

    return show


def test_the_line_to_type_stands_alone_and_has_the_port_where_that_is_not_the_usual_one(shown, monkeypatch):
    monkeypatch.setattr(cluster_view, "program", lambda: "seqpipe")
    assert "\n\n    seqpipe cluster join 192.168.1.10:7000\n\n" in shown()
    assert "\n\n    seqpipe cluster join 192.168.1.10\n\n" in shown(replace(HERE, port=6480))


def test_a_code_of_before_is_told_with_what_it_means(shown):
    assert "as before" not in shown()
    assert "(as before: laptops that had joined come back" in shown(replace(HERE, goes_on_from="192.168.1.10:7000"))
    assert "laptops that had joined 10.0.0.9 have to join this address" in shown(
        replace(HERE, goes_on_from="10.0.0.9")
    )


@pytest.mark.parametrize(
    ("here", "elsewhere"),
    [
        ("seqpipe", "seqpipe"),
        (".venv/bin/seqpipe", ".venv/bin/seqpipe"),
        ("/opt/x/seqpipe", "seqpipe"),
        ("../x/seqpipe", "seqpipe"),
    ],
)
def test_the_program_is_called_elsewhere_as_a_clone_would_call_it(monkeypatch, here, elsewhere):
    monkeypatch.setattr(cluster_view, "program", lambda: here)
    assert program_elsewhere() == elsewhere


def test_laptops_that_come_are_told_in_lines_with_the_time(tmp_path, capsys):
    view = UpView(Workspace(tmp_path), is_detached=False, shows_code=True)
    view.heard(OtherJoined("b", "10.0.0.2"))
    assert capsys.readouterr().err.endswith("  b (10.0.0.2) has joined\n")


def test_status_is_a_table_of_laptops_and_one_of_trials(capsys):
    show_status(HERE, [A, B], [SearchSummary("medium-ab", 3, 30, 0.812, 61.2)], as_json=False)
    out = capsys.readouterr().out
    nodes, trials = out.split("search     trial")
    lines = nodes.splitlines()
    assert lines[0] == "the cluster at 192.168.1.10:7000, ports 7000-7109"
    assert " ".join(lines[2].split()) == "a (head) 192.168.1.10 ready 4 1000 of 5000 MB 3000 MB - - 2"
    assert " ".join(lines[3].split()) == "b 192.168.1.11 ready 2 0 of 3000 MB 0 MB bf16 native 0"
    assert "a     medium-ab  7      2/5    50.00 %     700 of 900 MB" in trials
    assert "a     medium-ab  9      0/5    -           300 of 900 MB" in trials
    assert out.endswith("search medium-ab: 3 of 30 trials, best 81.20 %, 61 trials an hour\n")


def test_a_laptop_that_takes_no_work_says_why_and_one_that_is_silent_for_how_long(capsys):
    unfit = replace(B, state="unfit", why="its disk is full", clock=60.0)
    show_status(HERE, [A, unfit], [], as_json=False)
    out = capsys.readouterr().out
    assert "unfit: its disk is full, not heard of for 40 s" in out
    assert out.endswith("no search runs now\n")


def test_status_as_json_has_every_record(capsys):
    show_status(HERE, [A, B], [SearchSummary("s")], as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert (content["up"], content["head"], content["address"]) == (True, "a", "192.168.1.10:7000")
    assert [NodeRecord.from_json(record) for record in content["nodes"]] == [A, B]
    assert [SearchSummary.from_json(search) for search in content["searches"]] == [SearchSummary("s")]


def test_a_search_without_a_rate_yet_says_none():
    assert search_in_words(SearchSummary("s", 0, 30)) == "search s: 0 of 30 trials, best -"


def test_without_a_cluster_it_says_what_there_is_instead():
    assert "goes on with its join code" in none_in_words(ACCESS, None)
    assert "in the cluster of 10.0.0.9 already (process 7)" in none_in_words(None, NodeHere("member", "10.0.0.9", 7))
    assert none_in_words(None, None) == NONE_UP
