"""A gate for tests of the registry: the higher accuracy in the tags wins."""

from pipeline.tracking.promotion import Ruling, Standing
from pipeline.tracking.registry_names import ACCURACY_TAG


def by_accuracy(standing: Standing, reason: str) -> Ruling:
    if reason:
        return Ruling(False, f"not compared: {reason}", not_compared=reason)
    if standing.champion is None:
        return Ruling(True, "the first", {"gate": "first"})
    accuracies = [float(version.tags[ACCURACY_TAG]) for version in (standing.contender, standing.champion)]
    wins = accuracies[0] > accuracies[1]
    if standing.write_tag is not None:
        standing.write_tag("decisions", str(len(standing.others)))
    return Ruling(wins, f"better: {wins}", {"gate": str(wins)}, summary="in one line")
