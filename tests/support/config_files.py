"""Config files as users write them, and the error messages of invalid ones."""

from pathlib import Path

import pytest

from pipeline.config.models import MODEL_NAMES
from pipeline.config.recipes import DEFAULT, RECIPES, Recipe, Variant
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError


def file_of(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message_of(*sets: str, **rest: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(sets=sets, **rest)
    return str(caught.value)


def forget_default_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the default recipe set nothing, so that what no layer sets has the default of its field."""
    nothing = {name: {"four": Variant(), "all": Variant()} for name in MODEL_NAMES}
    monkeypatch.setitem(RECIPES, DEFAULT, Recipe("for tests", nothing))
