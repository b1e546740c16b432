"""The versions that a node runs: Python, Ray, torch, and the code of the packages that travel nowhere.

Nodes exchange pickled calls, so code, Ray and Python's minor version must be the same on all of them.
"""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tuning.cluster.join_code import DIGEST_LENGTH, short_hash

_SOURCES = (".py", ".c", ".yaml")
_CODE_LENGTH = 12


@dataclass(frozen=True)
class Versions:
    """What a node runs; an empty word is not known."""

    python: str = ""
    ray: str = ""
    torch: str = ""
    code: str = ""
    """A hash of the packages' source files."""

    @property
    def python_minor(self) -> str:
        """3.12 of 3.12.3: nodes may differ in the patch."""
        return ".".join(self.python.split(".")[:2])

    @property
    def digest(self) -> str:
        """A short hash of what must be the same on every node."""
        return short_hash("\n".join((self.python_minor, self.ray, self.code)), DIGEST_LENGTH)


def of_this_machine(packages: Sequence[Path]) -> Versions:
    """What this process runs, with the code in the folders of these packages."""
    return Versions(platform.python_version(), _installed("ray"), _installed("torch"), code_of(packages))


def code_of(packages: Sequence[Path]) -> str:
    """A hash of the names and contents of the packages' source files, wherever they are installed."""
    hashed = hashlib.sha256()
    for package in sorted(packages, key=lambda folder: folder.name):
        for path in sorted(package.rglob("*")):
            if path.suffix in _SOURCES and path.is_file():
                content = path.read_bytes()
                hashed.update(f"{path.relative_to(package.parent).as_posix()} {len(content)}\n".encode())
                hashed.update(content)
    return hashed.hexdigest()[:_CODE_LENGTH]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
