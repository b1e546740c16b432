import json

from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.cluster.versions import Versions

TRIAL = TrialOnNode("medium", 7, 2, 5, 0.5, 700.0, 900.0)
RECORD = NodeRecord(
    name="b", address="192.168.1.11", node_id="abc", cores=4, gives_mb=3000, reserve_mb=800,
    versions=Versions("3.12.3", "2.60.0", "2.13.0", "cafe"), facts={"precision": "bf16"}, clock=12.5,
    state="leaving", why="Ctrl-C", free_mb=4000, trials=(TRIAL,),
)  # fmt: skip


def test_a_record_comes_back_from_json_as_it_was():
    assert NodeRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD
    summary = SearchSummary("medium", 3, 30, 0.8, 61.5)
    assert SearchSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def test_a_record_of_another_version_can_be_read():
    content = {"name": "b", "address": "10.0.0.2", "versions": {"python": "3.13.0", "jax": "1"}, "colour": "blue"}
    read = NodeRecord.from_json(content | {"trials": [{"row": 3, "mood": "good"}]})
    assert read == NodeRecord("b", "10.0.0.2", versions=Versions("3.13.0"), trials=(TrialOnNode(row=3),))
    assert SearchSummary.from_json({"name": "s", "colour": "blue"}) == SearchSummary("s")


def test_a_figure_that_was_not_told_is_0():
    told = NodeRecord.from_json({"name": "b", "address": "x"}).to_json()
    assert not any(told[name] for name in told.keys() - {"name", "address", "versions", "state"})
    assert not any(TrialOnNode.from_json({}).to_json().values())
    assert not any(value for name, value in SearchSummary("s").to_json().items() if name != "name")


def test_only_a_node_that_is_ready_takes_work():
    assert NodeRecord("b", "x").takes_work
    assert not RECORD.takes_work
    assert not NodeRecord("b", "x", state="unfit").takes_work
