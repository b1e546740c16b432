"""A figure as SVG inside a page: its letters are the page's, and its colours change with the page's."""

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from pipeline.evaluation.chart_style import BLUE, GREEN, GREY, INK, ORANGE, PAPER, RULE, SKY, TINT, in_own_style

COLOURS = {
    INK: "--ink", GREY: "--muted", RULE: "--rule", PAPER: "--paper", TINT: "--tint",
    BLUE: "--blue", SKY: "--sky", ORANGE: "--orange", GREEN: "--green",
}  # fmt: skip
"""What of a chart is in the page's own colours: the variable of the page's style for each."""
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^")]+)')


@in_own_style
def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an element of a page; `name` is unique on it, `alt` says what a reader who cannot see it misses.

    What is no drawing is left out: prolog, namespaces (HTML knows them) and metadata, and so every address.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seqpipe"}):
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(
            written, format="svg", bbox_inches="tight", pad_inches=0.04, facecolor="none", metadata=nothing
        )
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", written.getvalue(), flags=re.DOTALL)
    opening, inside = re.findall(r"<svg([^>]*)>(.*)</svg>", text, flags=re.DOTALL)[0]
    [(width, height)] = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    inside = _own_ids(re.sub(r" font-family: [^;\"]*;?", "", inside), name)
    for colour, variable in COLOURS.items():
        inside = re.sub(re.escape(colour), f"var({variable})", inside, flags=re.IGNORECASE)
    inside = re.sub(r"\s*\n\s*", " ", inside)
    return (
        f'<svg viewBox="0 0 {float(width):.0f} {float(height):.0f}" role="img" aria-label="{escape(alt)}">'
        f"{inside}</svg>"
    )


def _own_ids(text: str, name: str) -> str:
    """The ids that something refers to, under names of this figure; the others go."""
    used = set(_REFERENCE.findall(text))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]*)"', renamed, text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
