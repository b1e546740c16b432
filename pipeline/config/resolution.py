"""Merge the layers of a config and validate the result, once.

Precedence: flag > ``--set a.b=c`` > ``--config file.yaml`` > the recipe > the model's own values > default. The
resolved config is stored with every run and can be fed back with ``--config``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.difference import first_few
from pipeline.config.messages import explain, is_set, place
from pipeline.config.models import MODEL_NAMES, OWN_VALUES
from pipeline.config.recipes import DEFAULT, RECIPE_NAMES, RECIPES, ClassChoice
from pipeline.config.schema import DataConfig, RunConfig
from pipeline.config.suggestions import nearest
from pipeline.errors import ConfigError
from pipeline.yaml_files import YamlError, parse, read_mapping


def resolve(
    model: str | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> RunConfig:
    """Merge the layers and validate the result once.

    `sets` are ``key.path=value`` texts with YAML values; `flags` maps dotted keys to values, None meaning not given.
    A relative path in the file starts at the file's folder, any other at the working directory.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a value of the wrong type.
    """
    from_file = read_mapping(file, "train: {epochs: 20}") if file else {}
    if file:
        _anchor(from_file, file.expanduser().parent)
    _check_same_model(file, from_file, model)
    layers = [from_file, *(_parse_set(text) for text in sets)]
    layers += [_nest(key, value) for key, value in (flags or {}).items() if value is not None]
    if model is not None:
        layers.append({"model": {"name": model}})
    given: dict[str, Any] = {}
    try:
        for layer in layers:
            _merge(given, layer)
    except RecursionError:  # a YAML alias may refer to what contains it
        raise ConfigError("config: a setting contains itself; write it without the alias") from None
    _anchor(given, Path())
    name = _model_name(given)
    recipe = _recipe_settings(given.get("recipe", DEFAULT), name, given)
    if file:
        _check_same_recipe(file, from_file, recipe, name, given)
    merged: dict[str, Any] = {}
    _merge(merged, OWN_VALUES[name])
    for key, value in recipe.items():
        _merge(merged, _nest(key, value))
    _merge(merged, given)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, name, place(file, layers[1:]))) from None


def with_values(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """A copy of the config with other values for some dotted keys, validated.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or an invalid value.
    """
    merged = config.model_dump()
    for key, value in values.items():
        _merge(merged, _nest(key, value))
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, config.model.name)) from None


def _model_name(given: dict[str, Any]) -> str:
    """The name of the model, which is completed in the merged layers."""
    if isinstance(given.get("model"), str):  # `model: small` is short for `model: {name: small}`
        given["model"] = {"name": given["model"]}
    part = given.setdefault("model", {})
    if not isinstance(part, dict):
        raise ConfigError("config: model must be a mapping with a name, such as `model: {name: small}`")
    name = part.setdefault("name", MODEL_NAMES[0])
    if name not in MODEL_NAMES:
        raise ConfigError(f"unknown model {name!r}{nearest(str(name), MODEL_NAMES)}")
    return str(name)


def _recipe_settings(recipe: object, model: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a recipe sets for a model and the classes that the layers choose; an unknown one is refused later."""
    known = RECIPES.get(recipe) if isinstance(recipe, str) else None
    return known.settings(model, _class_choice(given)) if known is not None else {}


def _class_choice(given: Mapping[str, Any]) -> ClassChoice:
    """Whether the layers choose all ten classes, however that is written."""
    data = given.get("data")
    try:
        chosen = DataConfig.model_validate({"classes": data["classes"]}) if isinstance(data, dict) else DataConfig()
    except (KeyError, ValidationError):  # not chosen here; what is wrong is refused later
        chosen = DataConfig()
    return "all" if chosen.classes == "all" else "four"


def _check_same_recipe(
    file: Path, content: Mapping[str, Any], asked: Mapping[str, Any], model: str, given: Mapping[str, Any]
) -> None:
    """Refuse a recipe of which a file, which wins over it, would leave nothing, or something of another recipe."""
    name, of_file = given.get("recipe", DEFAULT), content.get("recipe", DEFAULT)
    if name == of_file or name not in RECIPE_NAMES:
        return
    other = _recipe_settings(of_file, model, given)
    kept = [key for key in {**asked, **other} if is_set(content, key.split("."))]
    if kept and ("recipe" in content or {*asked} <= {*kept}):
        raise ConfigError(
            f"{file} sets {first_few(kept)}, and a file wins over a recipe; to run recipe {name}, take that out of "
            "the file"
        )


def _check_same_model(file: Path | None, content: Mapping[str, Any], model: str | None) -> None:
    """Refuse a file with the settings of one model for another model."""
    part = content.get("model")
    if isinstance(part, dict) and len(part) > 1 and model is not None and part.get("name", model) != model:
        raise ConfigError(
            f"{file} holds settings of {part['name']}; take out its `model:` part to run {model} with the rest of it"
        )


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"--set {text!r}: write it as key.path=value, such as --set train.epochs=20")
    if not value.strip():
        raise ConfigError(f"--set {text}: the value is missing; write null if you mean none")
    try:
        return _nest(key.strip(), parse(value))
    except YamlError as error:
        raise ConfigError(f"--set {key}: {str(error).removeprefix('line 1: ')}") from None


def _anchor(layer: Mapping[str, Any], base: Path) -> None:
    """Make a relative `data.folder` absolute, from `base`, so that it means the same wherever it is read again."""
    data = layer.get("data")
    folder = data.get("folder") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(folder, (str, Path)) or str(folder).startswith(("~", "/")):
        return
    try:
        data["folder"] = str(base.absolute() / folder) if str(folder) else folder
    except FileNotFoundError:
        raise ConfigError("the working directory no longer exists; change to another one") from None


def _nest(key: str, value: object) -> dict[str, Any]:
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            current = into.get(key)
            if key == "model" and isinstance(current, str):  # `model: small` under a layer with more settings
                current = {"name": current}
            into[key] = current if isinstance(current, dict) else {}
            _merge(into[key], value)
        else:
            into[key] = value
