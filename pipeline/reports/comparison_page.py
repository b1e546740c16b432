"""A comparison of runs as one HTML file that needs no other: its tables, and the images that runs disagree on."""

import io
from collections.abc import Iterator, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from pipeline.data.prepared import PreparedData
from pipeline.errors import WorkspaceError
from pipeline.evaluation.chart_style import SMALL, in_own_style
from pipeline.promotion.comparison import Disagreement
from pipeline.reports.comparison_words import Section, letter, sections
from pipeline.reports.page import data_uri, document, table, text
from pipeline.reports.run_comparison import SHOWN_DISAGREEMENTS, RunComparison
from pipeline.reports.validation_comparison import ValidationComparison
from pipeline.workspace.durable_files import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = 6


def write(path: Path, found: RunComparison | ValidationComparison, prepared: PreparedData | None) -> None:
    """Write the page; `prepared` has the images, None if they are not known here.

    Raises:
        WorkspaceError: the file cannot be written.
    """
    write_atomically(path, page(found, _images(prepared)).encode())


def page(found: RunComparison | ValidationComparison, images: "NDArray[Any] | None") -> str:
    """The page; `images` are the test images (N x H x W x 3, uint8) in the order of the first run's predictions."""
    pictures = _pictures(found, images) if isinstance(found, RunComparison) else ()
    body = "".join(map(_section, sections(found))) + "".join(pictures)
    title = " and ".join(side.name for side in found.sides)
    return document(title, f"<h1>{escape(title)}</h1>{body}")


def _images(prepared: PreparedData | None) -> "NDArray[Any] | None":
    try:
        return prepared.array("test_images") if prepared is not None else None
    except WorkspaceError:  # the page says that they are not here
        return None


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.columns:
        parts.append(table(section.heading, section.columns, section.rows))
    return "".join([*parts, *map(text, section.lines)])


def _pictures(found: RunComparison, images: "NDArray[Any] | None") -> Iterator[str]:
    for number, against in enumerate(found.against, start=1):
        if against.paired is None or not against.paired.disagreements:
            continue
        yield f"<h2>Images that A and {letter(number)} disagree on</h2>"
        if images is None:
            yield "<p>The test images are not in this workspace; <code>seqpipe run prepare</code> makes them.</p>"
            continue
        shown = against.paired.disagreements[:SHOWN_DISAGREEMENTS]
        png = _png(gallery(images, shown, found.class_names, letter(number)))
        yield f'<img alt="" src="{data_uri("image/png", png)}">'


@in_own_style
def gallery(images: "NDArray[Any]", shown: Sequence[Disagreement], class_names: Sequence[str], second: str) -> Figure:
    """The images (N x H x W x 3, uint8), each with its class and what A and the second run take it for."""
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(1.9 * _COLUMNS, 2.3 * rows), layout="constrained")
    for axes, one in zip_longest(figure.subplots(rows, _COLUMNS, squeeze=False).flat, shown):
        axes.set_axis_off()
        if one is None:
            continue
        axes.imshow(images[one.row], interpolation="nearest")
        axes.set_title(
            f"{class_names[one.label]}\nA: {class_names[one.first]} {100 * one.first_confidence:.0f} %\n"
            f"{second}: {class_names[one.second]} {100 * one.second_confidence:.0f} %",
            fontsize=SMALL,
            fontweight="normal",
            loc="center",
        )
    return figure


@in_own_style
def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    return content.getvalue()
