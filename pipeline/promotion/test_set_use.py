"""How often test images were used to decide which model is champion: every decision has a number of its own.

The numbers stand in tags of the registered model, which outlive versions that are deleted by hand. A server has no
way to count for two laptops at once, so a number is taken in two steps: it is written down, then all are read again.
Of two that took the same one, whoever wrote last sees the other, and takes a higher one; where both see it, both do.
So no two decisions keep one number. A number may stay unused: that makes later decisions stricter, not laxer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.tracking.registry_names import (
    DECIDED_AGAINST_TAG,
    DECISION_TAG,
    DECISIONS_TAG,
    NOT_COMPARED_TAG,
    REGISTER_KEY_TAG,
    TEST_HASH_TAG,
)

Tags = Mapping[str, str]
WriteTag = Callable[[str, str], Tags]
"""Writes a tag of the registered model, and reads all of them again."""


@dataclass(frozen=True)
class CountedDecision:
    """A decision between two versions of a registered model, each with its number and its tags.

    `others` are the tags of all versions but the challenger. Mirrored views are of the same images, and count with
    them.
    """

    challenger: int
    own: Tags
    champion: int
    its: Tags
    others: Iterable[Tags]

    def number(self, model: Tags) -> int:
        """The number that the decision has or would get; `model` are the tags of the registered model.

        A decision that is repeated, as after a crash, keeps its number. Versions of earlier releases, which compared
        accuracies, count as one decision each but for the first, which had none to be compared with.
        """
        if taken := _number(model.get(self._tag)):
            return taken
        is_same = self.own.get(DECIDED_AGAINST_TAG) == str(self.champion)
        return (is_same and _number(self.own.get(DECISION_TAG))) or self._highest(model) + 1

    def take_number(self, model: Tags, write: WriteTag) -> int:
        """The same, taken for good."""
        number = self.number(model)
        while True:
            model = write(self._tag, str(number))
            sharing = sorted(key for key in self._counted(model) if _number(model[key]) == number)
            if sharing == [self._tag]:
                return number
            number = self._highest(model) + 1 + sharing.index(self._tag)  # apart from each other at once

    @property
    def _tag(self) -> str:
        """The tag with the number of this decision. Numbers of versions are given anew after the last is deleted."""
        sides = (self.own.get(REGISTER_KEY_TAG, str(self.challenger)), self.its.get(REGISTER_KEY_TAG, self.champion))
        return f"{self._prefix}.{sides[0]}.{sides[1]}"

    @property
    def _prefix(self) -> str:
        return f"{DECISIONS_TAG}{self.own.get(TEST_HASH_TAG, '')[:16]}"

    def _counted(self, model: Tags) -> list[str]:
        """The tags with numbers of decisions on these test images."""
        return [key for key in model if key.startswith(f"{self._prefix}.")]

    def _highest(self, model: Tags) -> int:
        on_these = [tags for tags in self.others if tags.get(TEST_HASH_TAG) == self.own.get(TEST_HASH_TAG, "")]
        by_accuracy = sum(DECISION_TAG not in tags and NOT_COMPARED_TAG not in tags for tags in on_these)
        numbers = [_number(tags.get(DECISION_TAG)) for tags in (self.own, *on_these)]
        numbers += [_number(model[key]) for key in self._counted(model)]
        return max(*numbers, by_accuracy - 1, _number(model.get(self._prefix)), 0)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
