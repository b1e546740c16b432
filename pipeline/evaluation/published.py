"""The results that the original notebooks published, and how ours compare with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sequencer_models.catalog import MODELS
from sequencer_models.model_spec import Published

PUBLISHED_DATASET = "cifar10"
PUBLISHED_CLASSES = ("airplane", "automobile", "bird", "cat")
PUBLISHED_IMAGES = 4000


@dataclass(frozen=True)
class ModelResult:
    """A result of one of our models on test images; `fraction` is the share of the data set that the run used."""

    model: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    images: int
    dataset: str
    class_names: tuple[str, ...]
    fraction: float


@dataclass(frozen=True)
class ComparisonRow:
    """A row of the final table: our result, and the published one only if the two are like for like.

    `difference_points` is our accuracy less the published one, in percentage points. Where `like_for_like` is false,
    the published fields are None and `reason` says why.
    """

    model: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    images: int
    published_accuracy: float | None
    published_loss: float | None
    difference_points: float | None
    like_for_like: bool
    reason: str | None


def comparison_rows(results: Sequence[ModelResult]) -> list[ComparisonRow]:
    """One row per result, in the order given."""
    return [_row(result) for result in results]


def _row(result: ModelResult) -> ComparisonRow:
    reasons = _why_not_comparable(result)
    published = None if reasons else _published(result.model)
    return ComparisonRow(
        model=result.model,
        accuracy=result.accuracy,
        accuracy_low=result.accuracy_low,
        accuracy_high=result.accuracy_high,
        loss=result.loss,
        images=result.images,
        published_accuracy=published.accuracy if published else None,
        published_loss=published.loss if published else None,
        difference_points=100 * (result.accuracy - published.accuracy) if published else None,
        like_for_like=published is not None,
        reason="; ".join(reasons) or None,
    )


def _published(model: str) -> Published | None:
    spec = MODELS.get(model)
    return spec.published if spec else None


def _why_not_comparable(result: ModelResult) -> list[str]:
    reasons = []
    if _published(result.model) is None:
        reasons.append(f"nothing was published for {result.model}")
    if result.dataset != PUBLISHED_DATASET:
        reasons.append(f"data set {result.dataset}, not {PUBLISHED_DATASET}")
    if set(result.class_names) != set(PUBLISHED_CLASSES):  # their order does not matter
        reasons.append(f"classes {', '.join(result.class_names)}, not {', '.join(PUBLISHED_CLASSES)}")
    elif result.images != PUBLISHED_IMAGES:
        reasons.append(f"{result.images} test images, not {PUBLISHED_IMAGES}")
    if result.fraction != 1:
        reasons.append(f"trained on {result.fraction:.4g} of the data, not all of it")
    return reasons
