"""The promotion rule: which version becomes challenger, and which champion.

`challenger` is the newest version. `champion` is what the gate lets through, among versions that were evaluated on
the same test images. The gate itself is no part of this room: whoever registers brings it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.tracking.registry_names import DATA_HASH_TAG, REGISTER_KEY_TAG, TEST_HASH_TAG


@dataclass(frozen=True)
class Version:
    """A version of a registered model: its number and tags, and its predictions of the test images."""

    number: int
    tags: Mapping[str, str]
    predictions: Callable[[], Path | None] = lambda: None
    """Fetches the file of them; None if the version has none."""


@dataclass(frozen=True)
class Standing:
    """How things stand when a version is judged: the aliases, all versions, and the registered model's own tags."""

    contender: Version
    champion: Version | None
    challenger: Version | None
    others: tuple[Version, ...] = ()
    """All versions but the contender."""
    model_tags: Mapping[str, str] = field(default_factory=dict)
    write_tag: Callable[[str, str], Mapping[str, str]] | None = None
    """Writes a tag of the registered model and reads all of them again; None where nothing is to be written."""


@dataclass(frozen=True)
class Ruling:
    """What the gate says of a version, and what is written at it."""

    promotes: bool
    text: str = ""
    """Markdown, for the version's description."""
    tags: Mapping[str, str] = field(default_factory=dict)
    not_compared: str = ""
    """Why it could not be compared with the champion."""
    summary: str = ""
    """In one line, for the history of champions."""


Gate = Callable[[Standing, str], Ruling]
"""Called with how things stand, and with why the tags say that the two cannot be compared; empty if they can."""


@dataclass(frozen=True)
class Promotion:
    """Which aliases a version gets; `ruling` is the gate's, None if it was not asked."""

    to_challenger: bool
    to_champion: bool
    ruling: Ruling | None = None


def promote(standing: Standing, gate: Gate, earlier_test_hashes: Mapping[str, str]) -> Promotion:
    """Decide which aliases a version gets.

    It becomes champion if the gate promotes it. An older version never becomes challenger, and a newer version of the
    champion's own model, whose files were lost, takes its place unasked. `earlier_test_hashes` gives the hash of the
    test split by the hash of the whole data, which is all that versions of earlier releases recorded.
    """
    contender, champion = standing.contender, standing.champion
    to_challenger = standing.challenger is None or standing.challenger.number < contender.number
    if champion is not None and champion.tags.get(REGISTER_KEY_TAG) == contender.tags.get(REGISTER_KEY_TAG):
        return Promotion(to_challenger, champion.number < contender.number)
    reason = _why_not_compared(contender, champion, earlier_test_hashes) if champion is not None else ""
    ruling = gate(standing, reason)
    return Promotion(to_challenger, ruling.promotes, ruling)


def _why_not_compared(contender: Version, champion: Version, earlier_test_hashes: Mapping[str, str]) -> str:
    """Why their tags say that the two cannot be compared; empty if they can."""
    known = earlier_test_hashes.get(champion.tags.get(DATA_HASH_TAG, ""))
    tested_on = champion.tags.get(TEST_HASH_TAG, known)
    if tested_on is None:
        return f"the champion, version {champion.number}, does not say on which test images it was judged"
    if tested_on != contender.tags.get(TEST_HASH_TAG):
        return f"the champion, version {champion.number}, was judged on other test images"
    return ""
