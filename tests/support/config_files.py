"""Config files as users write them, and the error messages of invalid ones."""

from pathlib import Path

import pytest

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
