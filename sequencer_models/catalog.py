"""The models by name. To add one, declare it in a file of its own and name it in `MODELS`.

Its config group, its own values, the choices of `--model`, its default search space, its line in the help and its
published figures follow from its `ModelSpec`.
"""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from sequencer_models.model_spec import ModelSpec
from sequencer_models.sequencer2d_spec import MEDIUM, SMALL
from sequencer_models.vanilla_spec import VANILLA

if TYPE_CHECKING:
    from torch import nn

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in (SMALL, MEDIUM, VANILLA)}
"""The first is the default."""


def build(name: str, classes: int, **architecture: Any) -> "nn.Module":
    """Build the model `name` with fresh weights, drawn from torch's global generator.

    `architecture` holds fields that differ from the model's own; a list counts as a tuple.
    Raises `ValueError` for an unknown name, an unknown field, or fields that do not fit each other.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join(MODELS)}")
    spec = MODELS[name]
    fields = [field.name for field in dataclasses.fields(spec.architecture) if field.name != "classes"]
    unknown = [field for field in architecture if field not in fields]
    if unknown:
        raise ValueError(f"model {name} has no architecture field {unknown[0]!r}; choose from {', '.join(fields)}")
    given = {field: tuple(value) if isinstance(value, list) else value for field, value in architecture.items()}
    module, _, network = spec.network.partition(":")
    built: nn.Module = getattr(importlib.import_module(module), network)(
        spec.architecture(classes=classes, **{**spec.own_values, **given})
    )
    return built
