"""`seqpipe predict`: classify images with a registered model."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import collector
from pipeline.cli import options
from pipeline.cli.console import complain, on_one_line, watching
from pipeline.cli.store import store_of
from pipeline.counts import counted
from pipeline.durations import readable
from pipeline.percent import percent

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pipeline.cli.console import Watcher
    from pipeline.cli.predict_view import Row, Views
    from pipeline.errors import InterruptedRunError
    from pipeline.inference.classifier import Classifier
    from pipeline.inference.image_files import FoundImages


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("predict", epilog="Example: seqpipe predict photos/ cat.png --top 2 --csv classes.csv")(predict)


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images and folders of images (PNG, JPEG, WebP, BMP, GIF) of any size: cut to a square, resized.",
        ),
    ],
    model: options.RegisteredVersion = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the most probable classes to show.")] = 3,
    csv: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE", help="Write the probabilities of all classes there; - for stdout."),
    ] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option("--copy-to", metavar="DIR", help="Copy each image there, into a folder of its class."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Classify images with a registered model, by default the champion.

    What is no image, or cannot be read, is told, and the rest goes on: exit code 1 at the end.
    """
    from pipeline.cli.predict_view import Views
    from pipeline.errors import ConfigError
    from pipeline.inference.image_files import find_images

    if as_json and csv == "-":
        raise ConfigError("--json and --csv - both write to stdout: give --csv a file")
    with watching() as watcher:
        found = find_images(paths, except_in=copy_to)
        if found.left_out:
            left_out = counted(found.left_out, "file is", "files are")
            watcher.note(f"in these folders {left_out} hidden or not named like images, and left out")
        classifier = _load(model, watcher) if found.files else None
        with Views(classifier, top, csv_name=csv, as_json=as_json) as views:
            done = _predict(found, classifier, views, copy_to, watcher)
        if done.classified:
            watcher.note(done.in_words)
    _require_whole(done)  # after the files are closed: they hold what was done


def _load(model: str | None, watcher: "Watcher") -> "Classifier":
    """Load the model that was chosen, and say which it is."""
    with collector.paused():
        from pipeline.inference.loading import load
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.version_choice import VersionChoice
    from pipeline.workspace.paths import Workspace

    choice = VersionChoice.parse(model) if model is not None else VersionChoice()
    workspace = Workspace.find()
    classifier = load(choice, StoreConnection(store_of(workspace), workspace, complain), threads=None)
    accuracy = "" if classifier.card.accuracy is None else f", test accuracy {percent(classifier.card.accuracy)}"
    watcher.heading(f"{classifier.card.model} of {classifier.version}{accuracy}")
    return classifier


@dataclass(frozen=True)
class _Done:
    """What came of a command's files; `interruption` is the signal's, if it was left early."""

    total: int
    classified: int
    unreadable: int
    seconds: float
    interruption: "InterruptedRunError | None"

    @property
    def in_words(self) -> str:
        rate = self.classified / max(self.seconds, 1e-9)
        return f"{counted(self.classified, 'image')} in {readable(self.seconds)} ({rate:.0f} a second)"


def _predict(
    found: "FoundImages", classifier: "Classifier | None", views: "Views", copy_to: Path | None, watcher: "Watcher"
) -> _Done:
    """Classify what was found, and write what comes of it as it comes."""
    from pipeline.errors import InterruptedRunError
    from pipeline.inference.copies import SortedCopies
    from pipeline.inference.prediction import Unreadable
    from pipeline.stop import StopToken

    copies = SortedCopies(copy_to) if copy_to is not None else None
    total = len(found.files) + len(found.unreadable)
    done = unreadable = 0
    began = time.monotonic()
    with StopToken().installed() as token, token.deferring(), closing(_results(found, classifier)) as results:
        for rows in results:
            rows = copies.take(rows) if copies is not None else rows
            views.add(rows)
            for row in rows:
                if isinstance(row, Unreadable):
                    watcher.warn(f"{on_one_line(row.path)}: {row.reason}")
                    unreadable += 1
            done += len(rows)
            watcher.bytes_done("classifying", done, total)
            if token.reason() is not None or not (views.have_reader or copies is not None):
                break
        reason = token.reason() if done < total else None
    views.close(is_complete=done == total)
    interruption = reason if isinstance(reason, InterruptedRunError) else None
    return _Done(total, done - unreadable, unreadable, time.monotonic() - began, interruption)


def _require_whole(done: _Done) -> None:
    """Raise an error for what could not be read, or for a signal that left images over."""
    from pipeline.errors import ImageError, InterruptedRunError

    if done.interruption is not None:
        count = done.classified + done.unreadable
        raise InterruptedRunError(
            f"interrupted after {count} of {counted(done.total, 'image')}; what was done is written",
            done.interruption.signal_number,
        )
    if done.unreadable == done.total:
        raise ImageError("nothing was classified: what is wrong with each is named above")
    if done.unreadable:
        raise ImageError(f"{done.unreadable} of {done.total} could not be read (named above); the rest is classified")


def _results(found: "FoundImages", classifier: "Classifier | None") -> "Generator[Sequence[Row]]":
    """What comes of everything that was found: first what is no file, then the files in their order."""
    yield found.unreadable
    if classifier is not None:
        from pipeline.inference.classify import classify_files

        yield from classify_files(classifier, found.files)
