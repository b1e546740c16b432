"""The recipes: settings for a purpose, by name, and what was measured with them.

A recipe has settings for each model, on four classes and on all ten. A choice of other classes takes those of four.
What a recipe does not set has its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ClassChoice = Literal["four", "all"]


@dataclass(frozen=True)
class Evidence:
    """What was measured with a recipe, and how."""

    figure: str
    """With its unit and interval, such as `94.1 % of the test images (93.8 to 94.4)`."""
    seeds: tuple[int, ...]
    machine: str
    command: str

    def in_words(self) -> str:
        """One line."""
        which = "seed" if len(self.seeds) == 1 else "seeds"
        return f"{self.figure}; {which} {', '.join(map(str, self.seeds))}; {self.machine}; `{self.command}`"


@dataclass(frozen=True)
class Variant:
    """A recipe for one model and choice of classes."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys of the config."""
    evidence: Evidence | None = None
    """None: not measured yet."""


@dataclass(frozen=True)
class Recipe:
    """A recipe: what it is for, and what it sets."""

    purpose: str
    variants: Mapping[str, Mapping[ClassChoice, Variant]]
    """By model."""

    def settings(self, model: str, choice: ClassChoice) -> Mapping[str, Any]:
        """What it sets for a model that it knows; nothing for another one."""
        variants = self.variants.get(model)
        return variants[choice].settings if variants is not None else {}


_BEST = {"train.ema_decay": 0.998}
_CONV = {"model.stem": "conv"}

_DEFAULT_SMALL = Evidence(
    "85.72 % of the test images (84.61 to 86.77)", (0,), "2 cores with AVX-512 BF16", "make bench BENCH=default_run"
)

DEFAULT = "default"
RECIPES: Mapping[str, Recipe] = {
    DEFAULT: Recipe(
        "the described architecture; 0.26 PFLOP for small on four classes",
        {
            "small": {"four": Variant(evidence=_DEFAULT_SMALL), "all": Variant()},
            "medium": {"four": Variant(), "all": Variant()},
            "vanilla": {"four": Variant(), "all": Variant()},
        },
    ),
    "fast": Recipe(
        "84.85 % on validation, the best published figure, as soon as can be",
        {
            "small": {
                "four": Variant({"train.epochs": 4, **_CONV}),
                "all": Variant({"train.epochs": 4, **_CONV}),
            },
            "medium": {
                "four": Variant({"train.epochs": 4, **_CONV}),
                "all": Variant({"train.epochs": 4, **_CONV}),
            },
            "vanilla": {
                "four": Variant({"train.epochs": 4}),
                "all": Variant({"train.epochs": 4}),
            },
        },
    ),
    "best": Recipe(
        "the best accuracy within 0.8 PFLOP",
        {
            "small": {
                "four": Variant({"train.epochs": 33, **_BEST, **_CONV}),
                "all": Variant({"train.epochs": 13, **_BEST, **_CONV}),
            },
            "medium": {
                "four": Variant({"train.epochs": 24, **_BEST, **_CONV}),
                "all": Variant({"train.epochs": 9, **_BEST, **_CONV}),
            },
            "vanilla": {
                "four": Variant({"train.epochs": 33, **_BEST}),
                "all": Variant({"train.epochs": 33, **_BEST}),
            },
        },
    ),
}
RECIPE_NAMES = tuple(RECIPES)
