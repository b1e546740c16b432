"""The base of every config group, and how a message shows a value."""

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Group(BaseModel):
    """Frozen; unknown keys are errors, and true and false are not accepted as numbers or words."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _check_booleans(cls, given: object) -> object:
        for key, value in given.items() if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                continue
            takes_boolean = cls.model_fields[key].annotation is bool
            if takes_boolean and not isinstance(value, bool):
                raise _misread(key, f"{short(value)} is not a truth value; write true or false")
            parts = value if isinstance(value, (list, tuple)) else [value]
            if not takes_boolean and any(isinstance(part, bool) for part in parts):
                raise _misread(key, f"{short(value).lower()} is a truth value here; quote it if you mean the word")
        return given


def _misread(key: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("misread", "{text}", {"key": key, "text": text})


def short(value: object) -> str:
    """A value as messages show it, cut to 60 characters."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:  # Python does not print an integer of more than 4300 digits
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
