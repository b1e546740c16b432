"""The recipes: settings for a purpose, by name, and what was measured with them.

A recipe has settings for each model, on four classes and on all ten. A choice of other classes takes those of four.
What a recipe does not set has its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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


DEFAULT = "default"
_CHOICES: tuple[ClassChoice, ...] = get_args(ClassChoice)
_SHORT = {
    "model.forget_bias": 1.0,
    "train.optimizer": "muon",
    "train.learning_rate": 3e-3,
    "train.augment.alternating_flip": True,
    "train.augment.translate_pixels": 2,
}
"""What came furthest in few epochs, of all models."""
_MACHINE = "AMD EPYC with AVX-512 BF16, one thread each"
_LONG = {**_SHORT, "train.augment.translate_pixels": 4, "evaluate.mirrored": True}
_PLAIN = {"model.drop_path": 0.0}
_DEEP = {"model.stem": "deep", "model.stem_width": 64}


def _variants(
    shared: Mapping[str, Any],
    epochs: Mapping[str, tuple[int, int]],
    blocks: Mapping[str, Any],
    *,
    vanilla: Mapping[str, Any] | None = None,
    all_ten: Mapping[str, Any] | None = None,
    evidence: Mapping[tuple[str, ClassChoice], Evidence] | None = None,
) -> dict[str, dict[ClassChoice, Variant]]:
    """Variants of all models.

    Args:
        shared: what all of them set.
        epochs: of each model, on four classes and on all ten.
        blocks: what those with blocks set, too.
        vanilla: what vanilla sets, too.
        all_ten: what those with blocks set on all ten classes, in place of the rest.
        evidence: what was measured, by model and classes.
    """
    return {
        model: {
            choice: Variant(
                {
                    **shared,
                    **((vanilla or {}) if model == "vanilla" else blocks),
                    **((all_ten or {}) if choice == "all" and model != "vanilla" else {}),
                    "train.epochs": count,
                },
                (evidence or {}).get((model, choice)),
            )
            for choice, count in zip(_CHOICES, counts, strict=True)
        }
        for model, counts in epochs.items()
    }


RECIPES: Mapping[str, Recipe] = {
    DEFAULT: Recipe(
        "the described architecture; 0.25 PFLOP for small on four classes",
        _variants(
            _SHORT,
            {"small": (9, 9), "medium": (9, 9), "vanilla": (9, 9)},
            _PLAIN,
            evidence={
                ("small", "four"): Evidence(
                    "90.41 % of the test images (89.52 to 91.30), 0.24 PFLOP",
                    (0, 1, 2),
                    _MACHINE,
                    "seqpipe run all --seeds 0-2",
                ),
                ("medium", "four"): Evidence(
                    "89.88 % of the test images (88.90 to 90.77), 0.34 PFLOP",
                    (0,),
                    "AMD EPYC with AVX2, one thread",
                    "seqpipe run all --model medium",
                ),
            },
        ),
    ),
    "fast": Recipe(
        "84.85 % on validation, the best published figure, as soon as can be",
        _variants(
            {**_SHORT, "train.muon_learning_rate": 8e-3},
            {"small": (3, 3), "medium": (3, 3), "vanilla": (3, 3)},
            {**_PLAIN, "model.stem": "deep"},
            evidence={
                ("small", "four"): Evidence(
                    "85.20 and 84.45 % of the validation images, 0.088 PFLOP",
                    (0, 1),
                    "AMD EPYC with AVX-512 BF16, and one with AVX2",
                    "seqpipe run all --recipe fast --seeds 0-1",
                )
            },
        ),
    ),
    "best": Recipe(
        "the best accuracy within 0.8 PFLOP",
        _variants(
            _LONG,
            {"small": (24, 10), "medium": (16, 6), "vanilla": (33, 14)},
            _DEEP,
            vanilla={"model.sequence": "patches", "train.augment.cutout_pixels": 8},
            all_ten={**_PLAIN, "train.augment.translate_pixels": 2},
            evidence={
                ("small", "four"): Evidence(
                    "94.62 % of the test images (93.88 to 95.28), 0.74 PFLOP",
                    (0,),
                    _MACHINE,
                    "seqpipe run all --recipe best",
                ),
                ("small", "all"): Evidence(
                    "90.34 % of the test images (89.75 to 90.90), 0.75 PFLOP",
                    (0,),
                    "AMD EPYC with AVX2, two threads",
                    "seqpipe run all --recipe best --set data.classes=all",
                ),
                ("vanilla", "four"): Evidence(
                    "86.07 % of the test images (85.19 to 86.95), 0.32 PFLOP",
                    (0, 1, 2),
                    "AMD EPYC with AVX-512 BF16, and two with AVX2, one thread each",
                    "seqpipe run all --model vanilla --recipe best --seeds 0-2",
                ),
            },
        ),
    ),
}
RECIPE_NAMES = tuple(RECIPES)
