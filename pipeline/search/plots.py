"""The plots of a search."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.evaluation.plots import BLUE, GREY, ORANGE, SKY, in_own_style
from tuning.ledger import Row


@in_own_style
def history(points: Sequence[tuple[int, float, float]], rows: Sequence[Row]) -> Figure:
    """The value of each trial, the best so far, and the trials without a value that counts.

    `points` are number, value and best value so far of the completed trials.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    numbers, values, best = zip(*points, strict=True)
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
            color=GREY,
            label="memory cap, diverged or failed",
        )
    last = max(row.number for row in rows)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    axes.set(xlabel="trial", ylabel="validation accuracy (%)", title=f"Search, {len(rows)} trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


@in_own_style
def importance(shares: Mapping[str, float]) -> Figure:
    """The share of the completed trials' variance that each parameter explains (fANOVA), the largest on top."""
    figure = Figure(figsize=(7, 1.4 + 0.36 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(shares)
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{100 * shares[name]:.0f} %" for name in names], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="share of the spread that it explains (%)", title="What made the difference")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    axes.margins(x=0.12)
    return figure
