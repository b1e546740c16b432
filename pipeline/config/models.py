"""The config groups and the own values of the models, made from what `sequencer_models.catalog` declares."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, create_model, model_validator
from pydantic_core import PydanticUndefined

from pipeline.config.group import Group
from sequencer_models.catalog import MODELS
from sequencer_models.model_spec import ModelSpec, Setting, settings_of

MODEL_NAMES = tuple(MODELS)


class ModelGroup(Group):
    """What the groups of all models have in common."""

    name: str = Field(description="The architecture.")

    @model_validator(mode="after")
    def _makes_an_architecture(self) -> "ModelGroup":
        spec, given = MODELS[self.name], self.model_dump(exclude={"name"})
        for key, own in spec.own_values.items():
            value = given.get(key, own)
            if isinstance(own, tuple) and len(value) != len(own):
                raise ValueError(f"model.{key} needs {len(own)} numbers for {self.name}, got {len(value)}")
        spec.architecture(classes=2, **{**spec.own_values, **given})  # says what does not fit what
        return self


def _group(architecture: type[Any]) -> type[ModelGroup]:
    """One group for all models of an architecture, distinguished by their name."""
    names = tuple(name for name, spec in MODELS.items() if spec.architecture is architecture)
    fields: dict[str, Any] = {"name": (Literal[names], Field(description="The architecture."))}
    for key, (kind, setting) in settings_of(architecture).items():
        default = getattr(architecture, key, PydanticUndefined)
        fields[key] = (_annotation(kind, setting), Field(default, description=setting.description))
    return create_model(
        f"{architecture.__name__.removesuffix('Architecture')}Config",
        __base__=ModelGroup,
        __module__=__name__,
        __doc__=(architecture.__doc__ or "").partition("\n")[0],
        **fields,
    )


def _annotation(kind: Any, setting: Setting) -> Any:
    if setting.choices:
        return Literal[setting.choices]
    limits: dict[str, Any] = setting.limits
    if not limits:
        return kind
    if get_origin(kind) is tuple:
        number: Any = Annotated[get_args(kind)[0], Field(**limits)]
        return tuple[number, ...]
    return Annotated[kind, Field(**limits)]


def _own_values(spec: ModelSpec) -> dict[str, Any]:
    settings = settings_of(spec.architecture)
    return {"model": {key: value for key, value in spec.own_values.items() if key in settings}}


_GROUPS = [_group(architecture) for architecture in dict.fromkeys(spec.architecture for spec in MODELS.values())]
globals().update({group.__name__: group for group in _GROUPS})  # where pickle looks for them
if TYPE_CHECKING:
    ModelConfig = ModelGroup
else:
    ModelConfig = Annotated[Union[tuple(_GROUPS)], Field(discriminator="name")]  # noqa: UP007 - made at run time

OWN_VALUES: dict[str, dict[str, Any]] = {name: _own_values(spec) for name, spec in MODELS.items()}
"""The values that each model has in place of the defaults."""
