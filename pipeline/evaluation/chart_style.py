"""The one style of all charts: a column's width, colours that colour-blind readers tell apart, and more than colour.

Drawn without pyplot, so without a display, window or global state. What differs by colour differs by marker and line,
or by hatch, too, so a chart can be read in grey. Axes have units. A chart is as wide as a phone, or half a page.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
"""Of Okabe and Ito's palette."""
INK, GREY, RULE, PAPER, TINT = "#1B1F24", "#6E6E6E", "#D7DBE0", "#FFFFFE", "#F2F6FA"
"""Text, what is less important, grid lines, the ground, and that of a box; a page in the dark has others instead."""
WIDTH_INCHES = 4.8
DOTS_PER_INCH = 160
SMALL = 8
"""Points of the smallest letters."""

P = ParamSpec("P")
T = TypeVar("T")

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
}


@dataclass(frozen=True)
class Series:
    """How one of several series is drawn: in lines by colour, marker and line, in bars by colour and hatch."""

    colour: str
    marker: str
    line: str
    hatch: str


FIRST, SECOND, THIRD = Series(BLUE, "o", "-", ""), Series(ORANGE, "s", "--", "////"), Series(GREEN, "^", "-.", "....")


def in_own_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in this style, even if a matplotlibrc asks for another (LaTeX may be missing)."""

    @functools.wraps(draw)
    def draw_in_own_style(*args: P.args, **words: P.kwargs) -> T:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **words)

    return draw_in_own_style


@in_own_style
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes under the same matplotlib."""
    figure.savefig(
        path, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None}
    )


def in_percent(axis: Axis) -> None:
    """Write an axis of shares in per cent, which its label names as its unit."""
    axis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
