"""The search space: a model's default one, or a file's; checked before anything starts.

A file maps dotted keys of the config to the values they may take:

    train.learning_rate: {log_uniform: [5e-4, 8e-3]}
    train.batch_size:    {choice: [64, 128, 256]}
    model.dims:          {choice: [[128, 256], [192, 384]]}
    train.augment.translate_pixels: {integer: [0, 6]}
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.keys import flatten, known_keys
from pipeline.config.resolution import with_values
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError
from pipeline.yaml_files import read_mapping
from sequencer_models.catalog import MODELS
from tuning.errors import SpaceError
from tuning.space import Choice, Integer, LogUniform, Parameter, Space, Uniform

EXAMPLE = "train.learning_rate: {log_uniform: [5e-4, 8e-3]}"
MAX_COMBINATIONS = 1000
"""Up to this many combinations of countable values are all validated; beyond it, each value by itself."""
PROBE = 0.381966
"""A non-round probe value, as a share of the interval, so that integer-only keys are rejected."""

_TRAINING: dict[str, Parameter] = {
    "train.learning_rate": LogUniform(5e-4, 8e-3),
    "train.muon_learning_rate": LogUniform(1e-3, 1.6e-2),
    "train.weight_decay": LogUniform(0.005, 0.3),
    "train.adam_beta2": Choice((0.95, 0.98, 0.99, 0.999)),
    "train.label_smoothing": Uniform(0.0, 0.2),
    "train.batch_size": Choice((32, 64, 128)),
    "train.augment.translate_pixels": Integer(0, 4),
    "train.augment.cutout_pixels": Choice((0, 8, 12)),
}

_FIXED = {
    "data.": "it says which data the trials are compared on",
    "evaluate.": "it says how a trained model is reported on",
    "registry.": "it says how a trained model is registered",
    "compute.": "it says what the machine does, not what is trained",
    "model.name": "one search is of one model",
    "train.epochs": "trials are compared at equal epochs",
    "recipe": "it says what a config began with; name the settings themselves",
    "seed": "a lucky seed is not a better configuration",
}
"""Keys that no search may vary, and why; a trailing dot stands for the whole group."""


def space_for(config: RunConfig, file: Path | None = None) -> Space:
    """The space in a file, or the model's default one, checked.

    Raises:
        ConfigError: the space cannot be used; the message names the parameter.
    """
    if file is None:
        space = _fitting(default_space(config.model.name), config)
    else:
        try:
            space = Space.parse(read_mapping(file, EXAMPLE))
        except SpaceError as error:
            raise ConfigError(f"{file}: {str(error).removeprefix('search space: ')}") from None
    try:
        check(space, config)
    except ConfigError as error:
        raise ConfigError(f"{file or 'search space'}: {str(error).removeprefix('config: ')}") from None
    return space


def default_space(model: str) -> Space:
    """What a search of a model varies by default: how it is trained, and what its spec names."""
    of_model = {f"model.{key}": written for key, written in MODELS[model].search_space.items()}
    return Space({**_TRAINING, **Space.parse(of_model)} if of_model else _TRAINING)


def _fitting(space: Space, config: RunConfig) -> Space:
    """Of a default space what fits the config: with `model.whitened` there is no choice of stems, for one."""
    fitting: dict[str, Parameter] = {}
    for key, parameter in space.items():
        if key == "train.muon_learning_rate" and config.train.optimizer != "muon":
            continue
        if isinstance(parameter, Choice):
            fit = tuple(option for option in parameter.options if _takes(config, key, option))
            parameter = Choice(fit or parameter.options)  # if none fits, `check` says why
        fitting[key] = parameter
    return Space(fitting)


def _takes(config: RunConfig, key: str, value: Any) -> bool:
    try:
        with_values(config, {key: value})
    except ConfigError:
        return False
    return True


def check(space: Space, config: RunConfig) -> None:
    """Refuse a space that could propose an invalid `RunConfig`.

    Every key and every bound is tried, and every combination of countable values, if there are few.

    Raises:
        ConfigError: the message names the parameter.
    """
    known = known_keys(config.model.name)
    for key, parameter in space.items():
        for fixed, why in _FIXED.items():
            if key == fixed or (fixed.endswith(".") and key.startswith(fixed)):
                raise ConfigError(f"{key} cannot be searched: {why}")
        within = [name for name in known if name.startswith(f"{key}.")]
        if within:
            raise ConfigError(f"{key} is a group of settings; name one of them, such as {within[0]}")
        for value in _probes(parameter):
            with_values(config, {key: value})
    for values in _combinations(space):
        with_values(config, values)


def default_of(space: Space, config: RunConfig) -> dict[str, Any]:
    """Trial 0: the config's own values of the settings that the space varies."""
    values = flatten(config)
    return {key: values[key] for key in space}


def configuration(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config of a trial: `config` with the values that were proposed."""
    return with_values(config, values)


def in_words(parameter: Parameter) -> str:
    """A parameter's values, for people: `0.0005 to 0.008, each factor as likely`."""
    match parameter:
        case LogUniform(low, high):
            return f"{low:g} to {high:g}, each factor as likely"
        case Uniform(low, high):
            return f"{low:g} to {high:g}"
        case Integer(low, high, step):
            return f"{low} to {high}" + (f" in steps of {step}" if step > 1 else "")
        case Choice(options):
            return " | ".join(value_in_words(option) for option in options)


def value_in_words(value: Any) -> str:
    """A value of a configuration, in short: `[128,256]`."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(value_in_words(each) for each in value)}]"
    return str(value)


def _probes(parameter: Parameter) -> Iterator[Any]:
    """Values that show whether a key takes what the parameter may propose."""
    if isinstance(parameter, Uniform):
        yield from (parameter.low, parameter.high, parameter.low + PROBE * (parameter.high - parameter.low))
    elif isinstance(parameter, Integer) and len(parameter.values()) > MAX_COMBINATIONS:
        values = parameter.values()
        yield from (values[0], values[-1], *values[:: len(values) // MAX_COMBINATIONS])
    else:
        yield from parameter.values() or ()


def _combinations(space: Space) -> Iterator[dict[str, Any]]:
    """All combinations of the countable parameters, if there are few; the other keys keep the config's values."""
    countable = {key: values for key, parameter in space.items() if (values := parameter.values()) is not None}
    size = 1
    for values in countable.values():
        size *= len(values)
    if size <= MAX_COMBINATIONS:
        for chosen in itertools.product(*countable.values()):
            yield dict(zip(countable, chosen, strict=True))
