"""The gate over versions of a registry: whose predictions it reads, what it counts, what it writes down."""

import pytest
from paired_predictions import predictions_of

from pipeline.config.schema import GateConfig
from pipeline.evaluation.predictions import save_predictions
from pipeline.stages.judging import RegistryGate
from pipeline.tracking.promotion import Standing, Version
from pipeline.workspace.paths import Workspace

BOTH = [1] * 1700
WORSE = BOTH + [1] * 60 + [0] * 240
BETTER = BOTH + [0] * 60 + [1] * 100 + [0] * 140


class Shelf:
    """Versions with predictions in files."""

    def __init__(self, root):
        self.root, self.workspace = root, Workspace(root / "workspace")

    def version(self, number, right=None, *, kept_here=False, ids=None, **tags):
        given = {"run_key": f"k{number}", "test_hash": "t0", "parameters": "1000", **tags}
        path = self.root / f"{number}.npz"
        if kept_here:
            path = self.workspace.predictions / given["run_key"] / "predictions.npz"
            path.parent.mkdir(parents=True)
        if right is not None:
            save_predictions(path, predictions_of(right, ids=ids))
        return Version(number, given, lambda: path if right is not None and not kept_here else None)

    def ask(self, contender, champion, *others, reason="", **rules):
        gate = RegistryGate(GateConfig(**rules), self.workspace, 15)
        standing = Standing(contender, champion, champion, tuple(filter(None, (champion, *others))))
        return gate(standing, reason), gate.decision


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def test_a_better_version_is_promoted_and_the_decision_is_counted_where_it_will_be_found(shelf):
    ruling, decision = shelf.ask(shelf.version(2, BETTER), shelf.version(1, WORSE))
    assert ruling.promotes
    assert decision.number == 1
    assert (ruling.tags["gate_decision"], ruling.tags["gate_champion"]) == ("1", "1")
    assert "| better | yes |" in ruling.text


def test_a_worse_version_is_refused_with_every_rule(shelf):
    ruling, decision = shelf.ask(shelf.version(2, WORSE), shelf.version(1, BETTER))
    assert (ruling.promotes, ruling.not_compared) == (False, "")
    assert [verdict.rule for verdict in decision.verdicts] == ["not worse by 0.5 points", "better", "cheaper"]
    assert ruling.tags["gate_rule_better"].startswith("no: -2.00 points")


def test_decisions_before_make_the_level_stricter(shelf):
    earlier = shelf.version(3, gate_decision="7", gate_champion="1")
    _, decision = shelf.ask(shelf.version(4, BETTER), shelf.version(1, WORSE, gate_decision="0"), earlier)
    assert (decision.number, decision.level) == (8, pytest.approx(0.05 / 8))


def test_the_first_version_is_judged_by_the_rules_that_need_no_champion(shelf):
    ruling, decision = shelf.ask(shelf.version(1, WORSE), None, least_accuracy=0.9)
    assert not ruling.promotes
    assert ruling.tags["gate_decision"] == "0"
    assert decision.verdicts[0].figures == "accuracy 88.00%"
    assert shelf.ask(shelf.version(1, WORSE), None)[0].promotes


def test_fewer_parameters_are_read_from_the_tags(shelf):
    same = BOTH + [1] * 300
    assert shelf.ask(shelf.version(2, same, parameters="900"), shelf.version(1, same))[0].promotes
    assert not shelf.ask(shelf.version(2, same), shelf.version(1, same))[0].promotes
    assert not shelf.ask(shelf.version(2, same, parameters="?"), shelf.version(1, same))[0].promotes


def test_latencies_count_if_both_were_measured_on_the_same_machine(shelf):
    """Of a smaller network a higher latency is a cost; what was measured elsewhere says nothing."""
    same = BOTH + [1] * 300
    slow, fast = ({"latency_ms": ms, "latency_machine": "m"} for ms in ("3.0", "2.0"))
    elsewhere = {**fast, "latency_machine": "another"}

    def is_promoted(challenger, champion, parameters="900"):
        sides = shelf.version(2, same, parameters=parameters, **challenger), shelf.version(1, same, **champion)
        return shelf.ask(*sides)[0].promotes

    assert is_promoted(fast, slow)
    assert not is_promoted(slow, fast)
    assert is_promoted(slow, elsewhere)
    assert is_promoted(slow, {})
    assert is_promoted(slow, {"latency_machine": "m"})
    assert not is_promoted(fast, slow, parameters="1000")


def test_predictions_of_a_version_of_an_earlier_release_are_read_from_the_workspace(shelf):
    ruling, _ = shelf.ask(shelf.version(2, BETTER), shelf.version(1, WORSE, kept_here=True))
    assert ruling.promotes


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("champion", "the predictions of the champion, version 1, are gone or damaged"),
        ("damage", "the predictions of the champion, version 1, are gone or damaged"),
        ("contender", "its predictions of the test images are gone or damaged"),
        ("images", "beside the champion, version 1: they predicted other test images: 2000 and 2000, of which"),
        ("tags", "it was judged on other test images"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason_and_counts_for_nothing(shelf, why, said):
    contender = shelf.version(2, None if why == "contender" else BETTER)
    numbers = range(1, 2001) if why == "images" else None
    champion = shelf.version(1, None if why == "champion" else WORSE, ids=numbers)
    if why == "damage":
        (shelf.root / "1.npz").write_bytes(b"PK no predictions")
    ruling, decision = shelf.ask(contender, champion, reason=said if why == "tags" else "")
    assert not ruling.promotes
    assert ruling.not_compared.startswith(said)
    assert (decision.number, ruling.tags["gate_decision"]) == (0, "0")
