"""How often test images were used to decide which model is champion, as the tags of registered versions count it."""

from collections.abc import Iterable, Mapping

from pipeline.tracking.registry_names import (
    DECIDED_AGAINST_TAG,
    DECISION_TAG,
    NOT_COMPARED_TAG,
    TEST_HASH_TAG,
    decisions_tag,
)

Tags = Mapping[str, str]


def decisions_before(own: Tags, others: Iterable[Tags], model: Tags, *, against: int) -> int:
    """How many decisions on a version's test images came before the one against the version `against`.

    `own` are the tags of the version, `others` those of the other versions of its registered model, and `model` the
    registered model's, which outlive a version that is deleted by hand. A decision that is repeated, as after a
    crash, keeps its number. Versions of earlier releases, which compared accuracies, count as one decision each but
    for the first, which had none to be compared with.
    """
    number = _number(own.get(DECISION_TAG))
    if number and own.get(DECIDED_AGAINST_TAG) == str(against):
        return number - 1
    test_hash = own.get(TEST_HASH_TAG, "")
    on_these = [tags for tags in others if tags.get(TEST_HASH_TAG) == test_hash]
    by_accuracy = sum(DECISION_TAG not in tags and NOT_COMPARED_TAG not in tags for tags in on_these)
    numbers = [_number(tags.get(DECISION_TAG)) for tags in (own, *on_these)]
    return max(*numbers, by_accuracy - 1, _number(model.get(decisions_tag(test_hash))), 0)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
