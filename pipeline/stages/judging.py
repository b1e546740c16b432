"""The gate as the registry asks it: reads the predictions of challenger and champion, and writes down its answer."""

import contextlib
from typing import TYPE_CHECKING

from pipeline.config.schema import GateConfig
from pipeline.errors import WorkspaceError
from pipeline.promotion import gate, report
from pipeline.promotion.gate import GateDecision, Pairing, Side
from pipeline.promotion.test_set_use import CountedDecision
from pipeline.tracking.promotion import Ruling, Standing, Version
from pipeline.tracking.registry_names import (
    DECIDED_AGAINST_TAG,
    DECISION_TAG,
    LATENCY_MACHINE_TAG,
    LATENCY_TAG,
    PARAMETERS_TAG,
    RUN_KEY_TAG,
)
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.predictions import Predictions


class RegistryGate:
    """Judges a version by the predictions that lie with it and with the champion; `decision` is its last answer."""

    def __init__(self, rules: GateConfig, workspace: Workspace, calibration_bins: int) -> None:
        self._rules = rules
        self._workspace = workspace
        self._bins = calibration_bins
        self.decision: GateDecision | None = None

    def __call__(self, standing: Standing, reason: str) -> Ruling:
        self.decision = self._decide(standing, reason)
        return _ruling(self.decision, standing)

    def _decide(self, standing: Standing, reason: str) -> GateDecision:
        from pipeline.promotion.comparison import NotComparableError, class_counts, pair_counts, same_images

        contender, champion = standing.contender, standing.champion
        predicted = self._predictions(contender)
        if predicted is None:
            return gate.not_compared(
                self._rules, _unknown(contender), "its predictions of the test images are gone or damaged"
            )
        challenger = self._side(contender, predicted, champion)
        if champion is None:
            return gate.decide_first(self._rules, challenger)
        theirs = None if reason else self._predictions(champion)
        if theirs is None:
            why = reason or f"the predictions of the champion, version {champion.number}, are gone or damaged"
            return gate.not_compared(self._rules, challenger, why)
        try:
            (predicted,) = same_images(theirs, [predicted])
        except NotComparableError as error:
            return gate.not_compared(
                self._rules, challenger, f"beside the champion, version {champion.number}: {error}"
            )
        number = _number(standing, champion)
        pairing = Pairing(pair_counts(theirs, predicted), class_counts(theirs, predicted))
        return gate.decide(self._rules, challenger, self._side(champion, theirs, contender), pairing, number - 1)

    def _predictions(self, version: Version) -> "Predictions | None":
        """A version's predictions, None if they are gone or damaged; those of an earlier release's may be here."""
        from pipeline.evaluation.predictions import load_predictions

        kept = self._workspace.predictions / version.tags.get(RUN_KEY_TAG, "-") / "predictions.npz"
        for path in (version.predictions(), kept):
            if path is not None and path.is_file():
                with contextlib.suppress(WorkspaceError):  # what cannot be read is no evidence: the ruling says so
                    return load_predictions(path)
        return None

    def _side(self, version: Version, predicted: "Predictions", other: Version | None) -> Side:
        from pipeline.evaluation.metrics import compute

        found = compute(predicted, calibration_bins=self._bins)
        return Side(found.accuracy, _parameters(version), _latency_ms(version, other), found.ece)


def _number(standing: Standing, champion: Version) -> int:
    """The number of the decision on the test images; taken, where anything is to be written."""
    contender = standing.contender
    others = [one.tags for one in standing.others]
    use = CountedDecision(contender.number, contender.tags, champion.number, champion.tags, others)
    model, write = standing.model_tags, standing.write_tag
    return use.number(model) if write is None else use.take_number(model, write)


def _unknown(version: Version) -> Side:
    return Side(0.0, _parameters(version))


def _parameters(version: Version) -> int | None:
    text = version.tags.get(PARAMETERS_TAG, "")
    return int(text) if text.isdecimal() else None


def _latency_ms(version: Version, other: Version | None) -> float | None:
    """How long it takes for one image; None unless that was measured of the other one on the same machine too."""
    machines = {one.tags.get(LATENCY_MACHINE_TAG) for one in (version, other) if one is not None}
    try:
        return float(version.tags[LATENCY_TAG]) if len(machines) == 1 and None not in machines else None
    except (KeyError, ValueError):
        return None


def _ruling(decision: GateDecision, standing: Standing) -> Ruling:
    tags = {**report.tags(decision), DECISION_TAG: str(decision.number)}
    if decision.number and standing.champion is not None:
        tags[DECIDED_AGAINST_TAG] = str(standing.champion.number)
    return Ruling(
        decision.promotes,
        report.markdown(decision),
        tags,
        decision.why_not_compared,
        report.summary(decision),
    )
