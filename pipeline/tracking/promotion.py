"""The promotion rule: which version becomes challenger, and which champion.

`challenger` is the newest version. `champion` is the best on the test split, among versions that were evaluated on
the same test images.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.tracking.registry_names import ACCURACY_TAG, DATA_HASH_TAG, REGISTER_KEY_TAG, TEST_HASH_TAG


@dataclass(frozen=True)
class Contender:
    """A version that may be promoted.

    `key` names the trained model, which may have several versions. `earlier_test_hashes` gives the hash of the test
    split by the hash of the whole data, which is all that versions of earlier releases recorded.
    """

    version: int
    key: str
    accuracy: float
    test_hash: str
    earlier_test_hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    """The version that holds an alias now."""

    version: int
    tags: Mapping[str, str]

    @property
    def accuracy(self) -> float | None:
        """Its recorded test accuracy; None if there is none, or it is unreadable."""
        try:
            return float(self.tags[ACCURACY_TAG])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class Promotion:
    """Which aliases a version gets; `not_compared` says why it could not be compared with the champion."""

    to_challenger: bool
    to_champion: bool
    not_compared: str = ""


def promote(contender: Contender, champion: Holder | None, challenger: Holder | None) -> Promotion:
    """Decide which aliases a version gets.

    It becomes champion if there is none, or one with a lower test accuracy on the same images; a tie keeps the
    present one. A champion that cannot be compared stays. An older version never becomes challenger.
    """
    reason = _why_not_compared(contender, champion) if champion is not None else ""
    return Promotion(
        to_challenger=challenger is None or challenger.version < contender.version,
        to_champion=not reason and _wins(contender, champion),
        not_compared=reason,
    )


def _wins(contender: Contender, champion: Holder | None) -> bool:
    if champion is None:
        return True
    if _is_same_model(contender, champion):
        return champion.version < contender.version
    accuracy = champion.accuracy
    return accuracy is not None and (contender.accuracy > accuracy or math.isnan(accuracy))


def _is_same_model(contender: Contender, champion: Holder) -> bool:
    """Whether the champion is the contender itself, or an earlier version of it whose files were lost."""
    return champion.tags.get(REGISTER_KEY_TAG) == contender.key


def _why_not_compared(contender: Contender, champion: Holder) -> str:
    """Why the two accuracies do not say which model is better; empty if they do."""
    if _is_same_model(contender, champion):
        return ""
    if champion.accuracy is None:
        return f"the champion, version {champion.version}, does not say its test accuracy"
    known = contender.earlier_test_hashes.get(champion.tags.get(DATA_HASH_TAG, ""))
    tested_on = champion.tags.get(TEST_HASH_TAG, known)
    if tested_on is None:
        return f"the champion, version {champion.version}, does not say on which test images it was judged"
    if tested_on != contender.test_hash:
        return f"the champion, version {champion.version}, was judged on other test images"
    return ""
