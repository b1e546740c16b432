from pipeline.promotion import report
from pipeline.promotion.gate import GateDecision, Verdict

BETTER = Verdict("better", False, "+0.10 points; p 0.4 > 0.025")
EQUAL = Verdict("not worse by 0.5 points", True, "p 0.01 <= 0.025")


def test_a_decision_says_how_often_the_test_images_were_used_and_what_that_costs():
    decision = GateDecision(False, (BETTER,), 2, 0.025)
    assert report.summary(decision) == (
        "not promoted: decision 2 on these test images, so each rule is held to a level of 0.025"
    )
    assert report.summary(GateDecision(True, (EQUAL,), 1, 0.05)).startswith("promoted: the first decision")


def test_what_was_not_compared_says_why():
    assert report.summary(GateDecision(False, (), why_not_compared="other images")) == (
        "not promoted, not compared: other images"
    )
    assert report.summary(GateDecision(True, ())) == "promoted: there is no champion to compare it with"


def test_every_rule_is_a_row_of_the_table_and_a_tag():
    decision = GateDecision(False, (BETTER, EQUAL), 2, 0.025)
    assert report.rows(decision)[1] == ["not worse by 0.5 points", "yes", "p 0.01 <= 0.025"]
    assert "| better | no | +0.10 points; p 0.4 > 0.025 |" in report.markdown(decision).splitlines()
    assert report.tags(decision) == {
        "gate": report.summary(decision),
        "gate_rule_better": "no: +0.10 points; p 0.4 > 0.025",
        "gate_rule_not_worse": "yes: p 0.01 <= 0.025",
    }


def test_without_rules_there_is_no_table():
    assert report.markdown(GateDecision(True, ())) == "Gate: promoted: there is no champion to compare it with."
