"""The dotted keys of a config: which ones exist, and a config as keys and values."""

import json
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from pipeline.config.schema import RunConfig


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `resolve(file=...)` reads back."""
    readable = str(config.data.folder).isprintable()  # otherwise it may contain a line break, which YAML would fold
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=readable)
    return text


def known_keys(model: str) -> list[str]:
    """Every dotted key that can be set for a model, in the order of the schema."""
    return list(_keys(RunConfig, model))


def flatten(config: RunConfig) -> dict[str, object]:
    """The config as dotted keys and plain values, as MLflow shows parameters."""

    def walk(prefix: str, value: object) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value

    return dict(walk("", config.model_dump(mode="json")))


def as_words(values: Mapping[str, object]) -> list[str]:
    """Keys and values as they are written after `--set`: `data.classes=[cat,dog]`."""
    return [f"{key}={json.dumps(value).replace(' ', '').replace(chr(34), '')}" for key, value in values.items()]


def _keys(group: type[BaseModel], model: str, prefix: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        inner = _group_of(field.annotation, model)
        if inner is None:
            yield prefix + name
        else:
            yield from _keys(inner, model, f"{prefix}{name}.")


def _group_of(annotation: Any, model: str) -> type[BaseModel] | None:
    """The config group that a field holds, if any; for the union of model groups, the named model's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                names = get_args(member.model_fields["name"].annotation)
                if model in names:
                    return member
    return None
