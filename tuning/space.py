"""The search space: an ordered mapping from dotted names to typed parameters.

train.learning_rate: {log_uniform: [1e-4, 1e-2]}
model.drop_path:     {uniform: [0.0, 0.3]}
model.depth:         {integer: [2, 8, 2]}          # low, high, step
model.dims:          {choice: [[96, 192], [192, 384]]}
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tuning.errors import SpaceError

Config = Mapping[str, Any]
"""A configuration: a JSON value for each name of the space."""


@dataclass(frozen=True)
class Uniform:
    """A number anywhere in `low`..`high`."""

    low: float
    high: float
    kind = "uniform"

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)

    def contains(self, value: object) -> bool:
        """Whether the search may propose `value`."""
        return _is_number(value) and self.low <= value <= self.high

    def arguments(self) -> list[Any]:
        """The arguments of this kind in a written space."""
        return [self.low, self.high]

    def values(self) -> None:
        """Not countable."""


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A number in `low`..`high`, each factor of ten as likely as another."""

    kind = "log_uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise SpaceError(f"log_uniform needs bounds above 0, not {self.low:g}")


@dataclass(frozen=True)
class Integer:
    """A whole number `low`, `low + step`, ... up to `high`."""

    low: int
    high: int
    step: int = 1
    kind = "integer"

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if self.step < 1:
            raise SpaceError(f"the step must be at least 1, not {self.step}")

    def contains(self, value: object) -> bool:
        """Whether the search may propose `value`."""
        return isinstance(value, int) and not isinstance(value, bool) and value in self.values()

    def arguments(self) -> list[Any]:
        """The arguments of this kind in a written space."""
        return [self.low, self.high, self.step]

    def values(self) -> range:
        """Every value, in order."""
        return range(self.low, self.high + 1, self.step)


@dataclass(frozen=True)
class Choice:
    """One of a few JSON values, in no order."""

    options: tuple[Any, ...]
    kind = "choice"

    def __post_init__(self) -> None:
        if not self.options:
            raise SpaceError("choice needs at least one option")
        keys = [canonical(option) for option in self.options]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise SpaceError(f"choice names {twice} more than once")

    def contains(self, value: object) -> bool:
        """Whether the search may propose `value`."""
        return canonical(value) in {canonical(option) for option in self.options}

    def arguments(self) -> list[Any]:
        """The arguments of this kind in a written space."""
        return list(self.options)

    def values(self) -> tuple[Any, ...]:
        """Every value, in order."""
        return self.options


Parameter = Uniform | LogUniform | Integer | Choice
_KINDS = ("choice", "integer", "log_uniform", "uniform")


class Space(Mapping[str, Parameter]):
    """An ordered mapping from names to parameters, with at least one of them."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        if not parameters:
            raise SpaceError("the search space is empty; name at least one parameter to vary")
        self._parameters = dict(parameters)

    @classmethod
    def parse(cls, written: object) -> "Space":
        """The space that a YAML or JSON mapping describes; raises `SpaceError` with the parameter's name."""
        if written is None:
            written = {}
        if not isinstance(written, Mapping):
            raise SpaceError("a search space is a mapping from parameter names to {kind: [...]}")
        parameters = {}
        for name, description in written.items():
            try:
                parameters[str(name)] = _parameter(description)
            except SpaceError as error:
                raise SpaceError(f"search space: {name}: {error}") from None
        return cls(parameters)

    def to_json(self) -> dict[str, Any]:
        """The space as `parse` reads it."""
        return {name: {parameter.kind: parameter.arguments()} for name, parameter in self.items()}

    @property
    def size(self) -> int | None:
        """How many configurations there are; None where they cannot be counted."""
        size = 1
        for parameter in self.values():
            values = parameter.values()
            if values is None:
                return None
            size *= len(values)
        return size

    def at(self, index: int) -> dict[str, Any]:
        """The configuration with that number (from 0) in a space that can be counted."""
        config = {}
        for name, parameter in self.items():
            values = parameter.values()
            assert values is not None, "only a countable space is numbered"
            index, place = divmod(index, len(values))
            config[name] = values[place]
        return config

    def outside(self, config: Config) -> list[str]:
        """The names whose value in `config` is missing or one that this space would never propose."""
        return [
            name for name, parameter in self.items() if name not in config or not parameter.contains(config[name])
        ]

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def canonical(value: object) -> str:
    """The JSON text of a value, the same for equal values: two configurations are compared by it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _parameter(description: object) -> Parameter:
    if not isinstance(description, Mapping) or len(description) != 1:
        raise SpaceError("write one kind with its arguments, such as {uniform: [0.0, 0.5]}")
    kind, arguments = next(iter(description.items()))
    if kind not in _KINDS:
        raise SpaceError(f"unknown kind {kind!r}; there are {', '.join(_KINDS)}")
    if not isinstance(arguments, Sequence) or isinstance(arguments, str):
        raise SpaceError(f"{kind} needs a list, not {arguments!r}")
    if kind == "choice":
        return Choice(tuple(arguments))
    if kind == "integer":
        if len(arguments) not in (2, 3):
            raise SpaceError("integer needs [low, high] or [low, high, step]")
        return Integer(*[_whole(argument) for argument in arguments])
    if len(arguments) != 2:
        raise SpaceError(f"{kind} needs [low, high]")
    low, high = (_number(argument) for argument in arguments)
    return LogUniform(low, high) if kind == "log_uniform" else Uniform(low, high)


def _number(written: object) -> float:
    try:
        if isinstance(written, bool) or not isinstance(written, int | float | str):
            raise ValueError
        number = float(written)  # YAML 1.1 reads 1e-4, without a point, as text
    except ValueError:
        raise SpaceError(f"{written!r} is not a number") from None
    if not math.isfinite(number):
        raise SpaceError(f"{written!r} is not a finite number")
    return number


def _whole(written: object) -> int:
    number = _number(written)
    if number != int(number):
        raise SpaceError(f"{written!r} is not a whole number")
    return int(number)


def _ordered(low: float, high: float) -> None:
    if low >= high:
        raise SpaceError(f"the low bound must be below the high one, not [{low:g}, {high:g}]")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
