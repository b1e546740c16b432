"""Finds the images that a command names: files as they are, and in folders the files that are named like images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.inference.images import FORMATS_IN_WORDS, SUFFIXES, why_unreadable
from pipeline.inference.prediction import Unreadable


@dataclass(frozen=True)
class FoundImages:
    """What was found, each file once, in the order of the names that were given and of the names in each folder."""

    files: list[str]
    unreadable: list[Unreadable]
    left_out: int
    """Files in folders that are hidden, or not named like an image."""


def find_images(names: Sequence[str | os.PathLike[str]], *, except_in: Path | None = None) -> FoundImages:
    """Find the images of files and folders, those in folders inside them included, but not those in `except_in`.

    A link to a folder is followed; a folder that is reached twice is read once. Whether a file that was named is an
    image, or exists, shows when it is read.
    """
    search = _Search(except_in)
    for name in names:
        path = os.fspath(name)
        if not os.path.isdir(path):  # noqa: PTH112  # `Path.is_dir` raises below a folder that may not be read
            search.files.append(path)
        elif not search.read(path):
            search.unreadable.append(Unreadable(path, f"no images in this folder ({FORMATS_IN_WORDS})"))
    return FoundImages(list(dict.fromkeys(search.files)), search.unreadable, search.left_out)


class _Search:
    """What was found so far."""

    def __init__(self, left_alone: Path | None) -> None:
        self.files: list[str] = []
        self.unreadable: list[Unreadable] = []
        self.left_out = 0
        self._left_alone = _identity(left_alone) if left_alone is not None and left_alone.exists() else None
        self._read: set[tuple[int, int]] = set()

    def read(self, folder: str) -> bool:
        """Add the images of a folder and of those inside it; whether there was anything to say of it."""
        before = len(self.files), len(self.unreadable)
        waiting, has_read_some = [folder], False
        while waiting:
            path = waiting.pop()
            try:
                identity = _identity(path)
                if identity in self._read:
                    has_read_some = True
                elif identity != self._left_alone:
                    self._read.add(identity)
                    waiting += reversed(self._add(path))
            except OSError as error:
                self.unreadable.append(Unreadable(path, why_unreadable(path, error)))
        return has_read_some or (len(self.files), len(self.unreadable)) != before

    def _add(self, folder: str) -> list[str]:
        """Add the images right inside a folder; returns the folders there."""
        folders = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir() and not entry.name.startswith("."):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                    self.files.append(entry.path)
                elif not entry.is_dir():
                    self.left_out += 1
        return folders


def _identity(folder: str | Path) -> tuple[int, int]:
    """What tells a folder from all others, whatever it is called."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino
