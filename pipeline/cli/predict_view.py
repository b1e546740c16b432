"""What `seqpipe predict` writes as images are classified: lines of a table, a JSON document, a CSV file."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.cli import streams
from pipeline.cli.console import on_one_line
from pipeline.inference.prediction import Classified, Unreadable
from pipeline.workspace.durable_files import replacing, writing

if TYPE_CHECKING:
    from pipeline.inference.classifier import Classifier

Row = Classified | Unreadable


class Views:
    """What one command writes: a table or a JSON document on stdout, and a CSV file or instead of them one there."""

    def __init__(self, classifier: "Classifier | None", top: int, *, csv_name: str | None, as_json: bool) -> None:
        classes = classifier.classes if classifier is not None else ()
        self._open = ExitStack()
        self._writes_file = csv_name not in (None, "-")
        self._csv = CsvFile(self._open.enter_context(csv_file(csv_name)), classes) if csv_name is not None else None
        self._json = JsonDocument(classifier, top) if as_json else None
        self._table = Table(classes, top) if not as_json and csv_name != "-" else None

    def __enter__(self) -> "Views":
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    @property
    def have_reader(self) -> bool:
        """Whether anybody may still see what is written."""
        return self._writes_file or streams.has_reader()

    def add(self, rows: Sequence[Row]) -> None:
        """Write results, in their order."""
        for view in (self._table, self._json, self._csv):
            if view is not None:
                view.add(rows)

    def close(self, *, is_complete: bool) -> None:
        """Write what comes after the last result."""
        if self._json is not None:
            self._json.close(is_complete)


class Table:
    """Lines on stdout; the path comes last, so that each line can be written before the next image is known."""

    def __init__(self, classes: Sequence[str], top: int) -> None:
        self._top = min(top, len(classes))
        self._width = max(map(len, ("class", *classes)))
        self._head = "  ".join([*[f"{'class':<{self._width}}  probability"] * self._top, "image"]) + "\n"

    def add(self, rows: Sequence[Row]) -> None:
        lines = [self._line(row) for row in rows if isinstance(row, Classified)]
        if lines:
            head, self._head = self._head, ""
            sys.stdout.write(head + "\n".join(lines) + "\n")  # at once: drawing beside a live bar takes a millisecond

    def _line(self, row: Classified) -> str:
        best = [f"{name:<{self._width}}  {100 * share:>9.2f} %" for name, share in row.prediction.top(self._top)]
        return "  ".join([*best, on_one_line(row.path)])


class JsonDocument:
    """One JSON document on stdout, written as it grows. A name that is not UTF-8 has its bytes as surrogates."""

    def __init__(self, classifier: "Classifier | None", top: int) -> None:
        self._top = top
        self._counts = {"classified": 0, "unreadable": 0}
        self._is_empty = True
        sys.stdout.write(f'{{\n"model": {json.dumps(_model(classifier))},\n"images": [')

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._counts["unreadable" if isinstance(row, Unreadable) else "classified"] += 1
        lines = [json.dumps(self._entry(row), allow_nan=False) for row in rows]
        if lines:
            sys.stdout.write(("\n" if self._is_empty else ",\n") + ",\n".join(lines))
            self._is_empty = False

    def close(self, is_complete: bool) -> None:
        """Write the rest; without it the document is no JSON."""
        ending = json.dumps({**self._counts, "complete": is_complete})
        sys.stdout.write("\n],\n" + ending.removeprefix("{") + "\n")

    def _entry(self, row: Row) -> dict[str, object]:
        if isinstance(row, Unreadable):
            return {"path": row.path, "error": row.reason}
        best = [{"class": name, "probability": _digits(share)} for name, share in row.prediction.top(self._top)]
        return {"path": row.path, **best[0], "best": best}


class CsvFile:
    """A CSV file of the best class and the probabilities of all; what is not UTF-8 in a name becomes `\\udc..`."""

    def __init__(self, file: TextIO, classes: Sequence[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\n")
        self._blanks = [""] * (2 + len(classes))
        self._rows.writerow(["path", "class", "probability", *(f"probability_{name}" for name in classes), "error"])

    def add(self, rows: Sequence[Row]) -> None:
        self._rows.writerows(map(self._cells, rows))

    def _cells(self, row: Row) -> list[object]:
        if isinstance(row, Unreadable):
            return [row.path, *self._blanks, row.reason]
        found = row.prediction
        return [row.path, found.best, _digits(found.probability), *map(_digits, found.probabilities), ""]


@contextmanager
def csv_file(name: str) -> Iterator[TextIO]:
    """The file of `--csv`, put in place when it is whole; `-` is stdout, and a pipe or a device is written to."""
    path = Path(name)
    if name == "-":
        yield sys.stdout
    elif path.exists() and not path.is_file():
        with writing(path), path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
    else:
        with (
            writing(path),
            replacing(path) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file


def _model(classifier: "Classifier | None") -> dict[str, object] | None:
    if classifier is None:
        return None
    version = classifier.version
    return {
        "name": version.name,
        "version": version.number,
        "aliases": version.aliases,
        "run_id": version.run_id,
        "architecture": classifier.card.model,
        "classes": classifier.classes,
    }


def _digits(share: float) -> float:
    """A probability with the digits that it has in fp32."""
    return float(f"{share:.9g}")
