"""The charts of a search."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.chart_style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    SMALL,
    WIDTH_INCHES,
    in_own_style,
    in_percent,
)
from tuning.ledger import Row


@in_own_style
def history(points: Sequence[tuple[int, float, float]], rows: Sequence[Row]) -> Figure:
    """The value of each trial, the best so far, and the trials without a value that counts.

    `points` are number, value and best value so far of the completed trials.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 4.0), layout="constrained")
    axes = figure.subplots()
    numbers, values, best = zip(*points, strict=True)
    last = max(row.number for row in rows)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    axes.plot(numbers, values, linestyle="none", marker="o", color=BLUE, label="completed")
    stopped = [
        (row.number, row.finish.value)
        for row in rows
        if row.finish and row.outcome == "stopped" and row.finish.value is not None
    ]
    if stopped:
        axes.plot(
            *zip(*stopped, strict=True),
            linestyle="none",
            marker="v",
            color=SKY,
            label="stopped early (its best epoch)",
        )
    lost = [row.number for row in rows if row.outcome in ("memory_cap", "diverged", "failed")]
    if lost:
        floor = min([*values, *(value for _, value in stopped)])
        axes.plot(
            lost,
            [floor] * len(lost),
            linestyle="none",
            marker="x",
            markersize=6,
            color=GREY,
            label="memory cap, diverged or failed",
        )
    axes.set(xlabel="trial", ylabel="validation accuracy (%)", title=f"Search, {len(rows)} trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    in_percent(axes.yaxis)
    axes.grid(visible=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@in_own_style
def importance(shares: Mapping[str, float]) -> Figure:
    """The share of the completed trials' variance that each parameter explains (fANOVA), the largest on top."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.3 + 0.34 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(shares)
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{100 * shares[name]:.0f} %" for name in names], padding=3, fontsize=SMALL)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="share of the spread that it explains (%)", title="What made the difference")
    in_percent(axes.xaxis)
    axes.margins(x=0.12)
    return figure


@in_own_style
def memory(measured: Sequence[tuple[float, float]], cap_mb: float | None) -> Figure:
    """The peak memory of each trial (second) against its forecast (first), in MB, and the cap of a trial."""
    figure = Figure(figsize=(WIDTH_INCHES, 4.0), layout="constrained")
    axes = figure.subplots()
    highest = max(max(pair) for pair in measured)
    axes.plot([0, highest], [0, highest], linestyle="--", color=INK, linewidth=1.2, label="as forecast")
    axes.plot(*zip(*measured, strict=True), linestyle="none", marker="o", color=BLUE, label="a trial")
    if cap_mb is not None:
        axes.axhline(cap_mb, linestyle=":", color=ORANGE, label=f"cap of a trial ({cap_mb:.0f} MB)")
    axes.set(xlabel="forecast (MB)", ylabel="measured peak (MB)", title="Memory of the trials")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
