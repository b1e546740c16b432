"""What the gate decided, in words: a line, rows of a table, and Markdown for a version's description."""

from pipeline.promotion.gate import GateDecision

COLUMNS = ("rule", "holds", "figures")


def summary(decision: GateDecision) -> str:
    """One line: promoted or not, the number of the decision on these test images, and its level."""
    outcome = "promoted" if decision.promotes else "not promoted"
    if decision.why_not_compared:
        return f"{outcome}, not compared: {decision.why_not_compared}"
    if decision.number == 0:
        return f"{outcome}: there is no champion to compare it with"
    times = "the first decision" if decision.number == 1 else f"decision {decision.number}"
    return f"{outcome}: {times} on these test images, so each rule is held to a level of {decision.level:.3g}"


def rows(decision: GateDecision) -> list[list[str]]:
    """Every rule that was asked, under `COLUMNS`."""
    return [[one.rule, "yes" if one.holds else "no", one.figures] for one in decision.verdicts]


def markdown(decision: GateDecision) -> str:
    """The same for a version's description in MLflow."""
    lines = [f"Gate: {summary(decision)}."]
    if decision.verdicts:
        table = [list(COLUMNS), ["---"] * len(COLUMNS), *rows(decision)]
        lines += ["", *(f"| {' | '.join(cells)} |" for cells in table)]
    return "\n".join(lines)


def tags(decision: GateDecision) -> dict[str, str]:
    """Tags of the version: the outcome, and each rule with its figures."""
    found = {"gate": summary(decision)}
    for one in decision.verdicts:
        found[f"gate_rule_{one.rule.split(' by ')[0].split(' at ')[0].replace(' ', '_')}"] = (
            f"{'yes' if one.holds else 'no'}: {one.figures}"
        )
    return found
