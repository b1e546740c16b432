"""The settings in which two configs, or parts of them, differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "default"
"""In place of the value that a side lacks: settings that came later are left out at their defaults."""


@dataclass(frozen=True)
class Difference:
    """A setting that differs between two sides."""

    key: str
    """Dotted, such as `train.epochs`."""
    before: Any
    after: Any

    def in_words(self) -> str:
        """`train.epochs: 11 -> 20`."""
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """Every setting of two nested mappings that differs, in the order of `after`; then what only `before` has."""
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield Difference(f"{prefix}{key}", before.get(key, ABSENT), after.get(key, ABSENT))


def first_few(texts: list[str], count: int = 3) -> str:
    """The first few texts, and how many more there are: `a, b, c and 2 more`."""
    more = len(texts) - count
    return ", ".join(texts[:count]) + (f" and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
