"""Copies images into a folder, sorted into one folder for each class."""

import filecmp
import os
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from pipeline.inference.images import why_unreadable
from pipeline.inference.prediction import Classified, Unreadable
from pipeline.workspace.durable_files import writing


class SortedCopies:
    """Copies of images in `folder/<class>/`, under their own names.

    A copy that is there already is not made again. Where another file has the name, the copy is called `name (2)`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, rows: Sequence[Classified | Unreadable]) -> list[Classified | Unreadable]:
        """Copy what was classified; what can no longer be read for that is unreadable in the rows that come back.

        Raises:
            WorkspaceError: a copy cannot be written.
        """
        return [self._take(row) if isinstance(row, Classified) else row for row in rows]

    def _take(self, row: Classified) -> Classified | Unreadable:
        try:
            self.add(Path(row.path), row.prediction.best)
        except OSError as error:
            return Unreadable(row.path, why_unreadable(row.path, error))
        return row

    def add(self, source: Path, class_name: str) -> Path:
        """Copy an image into the folder of its class; returns the copy.

        Raises:
            OSError: the image cannot be read.
            WorkspaceError: the copy cannot be written.
        """
        into = self._folder / (class_name.replace("/", "_").lstrip(".") or "_")
        with source.open("rb"), writing(into):
            into.mkdir(exist_ok=True)
            for number in count(1):
                target = into / (source.name if number == 1 else f"{source.stem} ({number}){source.suffix}")
                if not target.exists():
                    self._copy(source, target)
                    return target
                if filecmp.cmp(source, target, shallow=False):
                    return target
        raise AssertionError("count does not end")

    def _copy(self, source: Path, target: Path) -> None:
        """Copy, so that a kill leaves no half of an image under its name."""
        beside = target.with_name(f".{os.getpid()}.tmp")
        try:
            shutil.copyfile(source, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
