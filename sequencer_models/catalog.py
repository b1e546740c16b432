"""The models by name. A new model is one more entry of `MODELS`."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sequencer_models.sequencer2d import Sequencer2D, Sequencer2DSpec
from sequencer_models.vanilla import VanillaBiLSTM, VanillaSpec


@dataclass(frozen=True)
class ModelEntry:
    """A model of the catalog: its spec, its builder, and what it sets apart from the spec's own defaults."""

    summary: str
    spec: Callable[..., Any]
    model: Callable[[Any], nn.Module]
    defaults: Mapping[str, Any]


MODELS: dict[str, ModelEntry] = {
    "small": ModelEntry(
        summary="Sequencer2D: 4 blocks of 192 channels, then 3 of 384",
        spec=Sequencer2DSpec,
        model=Sequencer2D,
        defaults={"dims": (192, 384), "depths": (4, 3), "pointwise": (2,)},
    ),
    "medium": ModelEntry(
        summary="Sequencer2D: as small, then a pointwise linear layer and 3 more blocks of 384",
        spec=Sequencer2DSpec,
        model=Sequencer2D,
        defaults={"dims": (192, 384, 384), "depths": (4, 3, 3), "pointwise": (2, 3)},
    ),
    "vanilla": ModelEntry(
        summary="Vanilla BiLSTM: the image as one sequence, stacked BiLSTMs",
        spec=VanillaSpec,
        model=VanillaBiLSTM,
        defaults={},
    ),
}


def build(name: str, classes: int, **architecture: Any) -> nn.Module:
    """Build the model `name` with fresh weights, drawn from torch's global generator.

    `architecture` holds fields of its spec that differ from `architecture_defaults(name)`; a list counts as a tuple.
    Raises `ValueError` for an unknown name, an unknown field, or fields that do not fit each other.
    """
    fields = architecture_defaults(name)
    for field, value in architecture.items():
        if field not in fields:
            raise ValueError(f"model {name} has no architecture field {field!r}{_instead(field, fields)}")
        fields[field] = tuple(value) if isinstance(value, list) else value
    entry = MODELS[name]
    return entry.model(entry.spec(classes=classes, **fields))


def architecture_defaults(name: str) -> dict[str, Any]:
    """Every architecture field of the model `name` with its default, `classes` left out.

    Raises `ValueError` for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}{_instead(name, MODELS)}")
    entry = MODELS[name]
    spec = entry.spec(classes=1, **entry.defaults)
    return {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.name != "classes"}


def _instead(unknown: str, known: Iterable[str]) -> str:
    """What to write instead: the nearest known name, and all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(unknown, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"{hint} choose from {', '.join(names)}"
