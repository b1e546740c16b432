"""How a model is declared, without importing torch: its fields, its network, and what else is known of it by name.

The architecture is a frozen dataclass. Fields annotated with a `Setting` can be set by users, under `model.` in a
config; the others are fixed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

Init = Literal["he", "paper"]
"""See `initialisation.init_weights`, for the next one too."""
RecurrentInit = Literal["uniform", "orthogonal"]
Pooling = Literal["mean", "attention"]
"""See `pooling`."""

_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": ("at least", lambda value, limit: value >= limit),
    "gt": ("above", lambda value, limit: value > limit),
    "le": ("at most", lambda value, limit: value <= limit),
    "lt": ("below", lambda value, limit: value < limit),
    "multiple_of": ("a multiple of", lambda value, limit: value % limit == 0),
}


@dataclass(frozen=True)
class Setting:
    """What a field that users can set means, and the limits of its number, or of each of its numbers."""

    description: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: int | None = None
    choices: tuple[Any, ...] | None = None
    """The values that users can choose from, where the network itself takes more."""

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are, by pydantic's names."""
        return {kind: limit for kind in _LIMITS if (limit := getattr(self, kind)) is not None}


InitSetting = Annotated[Init, Setting("He initialisation of linear layers, or the paper's own.")]
RecurrentInitSetting = Annotated[
    RecurrentInit, Setting("How recurrent weights start: uniform, or an orthogonal matrix for each gate.")
]
ForgetBiasSetting = Annotated[
    float, Setting("Added to the forget gates' biases at the start: states last longer with 1.", ge=0, le=10)
]
PoolingSetting = Annotated[
    Pooling, Setting("Tokens to one vector: their mean, or attention, a mean weighted by a softmax of learnt scores.")
]


@dataclass(frozen=True)
class Published:
    """The test figures of a notebook; accuracy is a fraction, loss the mean cross entropy in nats."""

    accuracy: float
    loss: float


@dataclass(frozen=True)
class ModelSpec:
    """A model: what its name stands for."""

    name: str
    summary: str
    architecture: type[Any]
    """A dataclass with a field `classes`, and a `Setting` on each field that users can set."""
    network: str
    """What builds the network, as `module:callable`: imported when it is needed, and torch with it."""
    own_values: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the architecture whose value is this model's own."""
    search_space: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    """What a search varies of the architecture by default, written as in a `--space` file, without `model.`."""
    has_blocks: bool = False
    """Whether the network is made of `activation_checkpointing.Blocks`."""
    published: Published | None = None


def settings_of(architecture: type[Any]) -> dict[str, tuple[Any, Setting]]:
    """The fields of an architecture that users can set, in order: the type of each, and its setting."""
    found = {}
    for name, hint in get_type_hints(architecture, include_extras=True).items():
        if get_origin(hint) is Annotated:
            found[name] = (hint.__origin__, hint.__metadata__[0])
    return found


def check_settings(architecture: Any) -> None:
    """Raise `ValueError`, with what would do, for a setting outside of its limits or options."""
    for name, (kind, setting) in settings_of(type(architecture)).items():
        value = getattr(architecture, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}: choose one of {', '.join(get_args(kind))}")
        numbers = value if isinstance(value, tuple) else (value,)
        for number in () if value is None else numbers:
            for limit_name, limit in setting.limits.items():
                words, holds = _LIMITS[limit_name]
                if not holds(number, limit):
                    raise ValueError(f"{name} is {value}: it must be {words} {limit:g}")
