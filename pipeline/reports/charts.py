"""Charts over several trainings: how seeds spread, and what was forecast against what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation.chart_style import (
    BLUE,
    FIRST,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    SECOND,
    SMALL,
    WIDTH_INCHES,
    in_own_style,
    in_percent,
)


@dataclass(frozen=True)
class SeedsRow:
    """A row of the chart of seeds: shares from 0 to 1."""

    label: str
    values: Sequence[float]
    """Of each seed."""
    mean: float
    low: float
    high: float
    """The 95 % interval of the mean, or of the one seed."""
    published: float | None


@dataclass(frozen=True)
class ForecastRow:
    """What was forecast of a group of trainings, and what was measured; None where it is not known."""

    label: str
    forecast: float | None
    measured: float | None


@in_own_style
def seeds_chart(
    rows: Sequence[SeedsRow], title: str = "Seeds and intervals", interval: str = "95 % interval"
) -> Figure:
    """The test accuracy of every seed, the mean with its interval, and the published figure; a line a group."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.5 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        once = "" if place == 0 else "_"  # a legend names each kind once
        axes.plot(
            [row.low, row.high], [place, place], color=INK, linewidth=1.6, marker="|", markersize=9,
            label=f"{once}{interval}",
        )  # fmt: skip
        axes.plot(
            row.values, [place] * len(row.values), linestyle="none", marker="o", markersize=6, color=BLUE,
            markerfacecolor="none", label=f"{once}a seed",
        )  # fmt: skip
        axes.plot([row.mean], [place], linestyle="none", marker="D", markersize=5, color=ORANGE, label=f"{once}mean")
    published = [(row.published, place) for place, row in enumerate(rows) if row.published is not None]
    if published:
        axes.plot(
            *zip(*published, strict=True), linestyle="none", marker="X", markersize=7, color=GREEN, label="published"
        )
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="test accuracy (%)", title=title)
    axes.margins(x=0.06)
    in_percent(axes.xaxis)
    axes.grid(visible=True, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@in_own_style
def forecast_chart(rows: Sequence[ForecastRow], quantity: str, unit: str) -> Figure:
    """What was forecast and what was measured of a quantity, in its unit, as two bars a group."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.6 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    for offset, name, series in ((-0.19, "forecast", SECOND), (0.19, "measured", FIRST)):
        lengths = [getattr(row, name) or 0.0 for row in rows]
        bars = axes.barh(
            places + offset, lengths, 0.34, color=series.colour, hatch=series.hatch, edgecolor=PAPER, label=name
        )
        axes.bar_label(
            bars, ["not known" if getattr(row, name) is None else f"{getattr(row, name):.4g}" for row in rows],
            fontsize=SMALL, padding=2,
        )  # fmt: skip
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=f"{quantity} ({unit})", title=f"{quantity.capitalize()}, forecast and measured")
    axes.margins(x=0.16)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
