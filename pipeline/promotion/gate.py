"""The gate: whether a challenger takes the champion's place, by rules and with the figures of each.

**What a decision costs.** Every decision on the same test images is another chance to promote by luck. The k-th of
them is made at the level (1 - confidence) / k, so a model that is no better than its champion is promoted as better
there with at most that probability. The expected number of such promotions in K decisions is at most
(1 - confidence) * (1 + 1/2 + ... + 1/K): at 95 %, 0.05 in one, 0.15 in ten, 0.26 in a hundred. A decision counts once
it has compared two models on these images, however it went; asking what the gate would say counts for nothing.

**Two ways in.** A challenger is promoted if it is shown to be better, or if it is shown to be not worse by the margin
and is cheaper. Each claim is tested at the full level. So a model as costly as the champion that is no better is
promoted with at most the level's probability; an equal one that is cheaper is promoted rightly. One that is worse by
the margin and cheaper is promoted with at most the level's probability by the second way, and by the first with that
of a worse model that looks significantly better, which is small: what is better is all but always not worse too.
Rules that must all hold (classes, calibration, least accuracy) can only make a promotion rarer, so that each is
tested at the full level (an intersection-union test; Berger 1982).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config.schema import GateConfig
from pipeline.counts import counted
from pipeline.promotion.paired_tests import PairCounts, better, not_worse

LATENCY_NOISE = 0.05
"""A latency that is higher by less than this share counts as equal."""


@dataclass(frozen=True)
class Side:
    """What the gate knows of one of the two models."""

    accuracy: float
    parameters: int | None = None
    """None: not known, as of a champion that an earlier release registered."""
    latency_ms: float | None = None
    """Of one image; None where it was not measured for both on the same machine."""
    ece: float | None = None


@dataclass(frozen=True)
class Pairing:
    """How champion (first) and challenger (second) did on the same images, all of them and those of each class."""

    counts: PairCounts
    classes: Mapping[str, PairCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What one rule says, with its figures in words."""

    rule: str
    holds: bool
    figures: str


@dataclass(frozen=True)
class GateDecision:
    """Whether the challenger is promoted, and every rule that was asked.

    `number` counts the decisions on these test images, this one included; 0 if nothing was compared. `level` is the
    one that the rules were held to.
    """

    promotes: bool
    verdicts: tuple[Verdict, ...]
    number: int = 0
    level: float | None = None
    why_not_compared: str = ""


def decide_first(rules: GateConfig, challenger: Side) -> GateDecision:
    """Whether a model becomes champion where there is none: there is nothing to compare it with."""
    verdicts = _alone(rules, challenger)
    return GateDecision(all(verdict.holds for verdict in verdicts), verdicts)


def not_compared(rules: GateConfig, challenger: Side, reason: str) -> GateDecision:
    """The champion stays, since nothing shows which of the two is better."""
    return GateDecision(False, _alone(rules, challenger), why_not_compared=reason)


def decide(
    rules: GateConfig, challenger: Side, champion: Side, pairing: Pairing, decisions_before: int
) -> GateDecision:
    """Whether the challenger takes the champion's place.

    `decisions_before` is how many decisions these test images have been used for so far.
    """
    number = decisions_before + 1
    level = (1 - rules.confidence) / number
    must = (*_alone(rules, challenger), *_no_class_worse(rules, pairing, level))
    is_better = _better(pairing.counts, level)
    if rules.equal_within_points is None:
        ways, is_worth_it = [is_better], is_better.holds
    else:
        is_equal = _not_worse(pairing.counts, rules.equal_within_points, level)
        is_cheaper = _cheaper(challenger, champion)
        ways = [is_equal, is_better, *([is_cheaper] if rules.equal_must_be_cheaper else [])]
        is_worth_it = is_better.holds or (is_equal.holds and (is_cheaper.holds or not rules.equal_must_be_cheaper))
    return GateDecision(is_worth_it and all(rule.holds for rule in must), (*ways, *must), number, level)


def _alone(rules: GateConfig, challenger: Side) -> tuple[Verdict, ...]:
    """The rules that need no champion; they compare a figure with a limit and spend no level."""
    verdicts = []
    if rules.least_accuracy is not None:
        holds = challenger.accuracy >= rules.least_accuracy
        verdicts.append(
            Verdict(f"accuracy at least {rules.least_accuracy:.2%}", holds, f"accuracy {challenger.accuracy:.2%}")
        )
    if rules.largest_ece is not None:
        known = challenger.ece is not None
        holds = challenger.ece is not None and challenger.ece <= rules.largest_ece
        figures = f"calibration error {challenger.ece:.4f}" if known else "its calibration error is not known"
        verdicts.append(Verdict(f"calibration error at most {rules.largest_ece:g}", holds, figures))
    return tuple(verdicts)


def _better(counts: PairCounts, level: float) -> Verdict:
    p_value = better(counts)
    challenger = counted(counts.only_second, "image")
    figures = (
        f"{100 * counts.difference:+.2f} points: only the challenger is right on {challenger}, "
        f"only the champion on {counts.only_first}; {_compared_with(p_value, level)}"
    )
    return Verdict("better", p_value <= level, figures)


def _not_worse(counts: PairCounts, points: float, level: float) -> Verdict:
    p_value = not_worse(counts, points / 100)
    return Verdict(f"not worse by {points:g} points", p_value <= level, _compared_with(p_value, level))


def _no_class_worse(rules: GateConfig, pairing: Pairing, level: float) -> tuple[Verdict, ...]:
    """That no class is worse: it must be shown of every class, so the largest p-value is the one that counts."""
    if rules.class_drop_points is None:
        return ()
    found = {name: not_worse(counts, rules.class_drop_points / 100) for name, counts in pairing.classes.items()}
    if not found:
        return (Verdict(f"no class worse by {rules.class_drop_points:g} points", False, "no classes were compared"),)
    worst = max(found, key=found.__getitem__)
    figures = f"{worst} {100 * pairing.classes[worst].difference:+.2f} points; {_compared_with(found[worst], level)}"
    return (Verdict(f"no class worse by {rules.class_drop_points:g} points", found[worst] <= level, figures),)


def _cheaper(challenger: Side, champion: Side) -> Verdict:
    """Cheaper: fewer parameters, and no higher latency as far as that is known.

    A lower latency alone is no sign: of one network trained twice it differs by what else the machine did.
    """
    if challenger.parameters is None or champion.parameters is None:
        return Verdict("cheaper", False, "costs not known")
    holds = challenger.parameters < champion.parameters
    figures = [f"{challenger.parameters} parameters, the champion {champion.parameters}"]
    if challenger.latency_ms is not None and champion.latency_ms is not None:
        holds = holds and challenger.latency_ms <= champion.latency_ms * (1 + LATENCY_NOISE)
        figures.append(f"{challenger.latency_ms:.1f} ms an image, the champion {champion.latency_ms:.1f} ms")
    return Verdict("cheaper", holds, "; ".join(figures))


def _compared_with(p_value: float, level: float) -> str:
    return f"p {p_value:.3g} {'<=' if p_value <= level else '>'} {level:.3g}"
