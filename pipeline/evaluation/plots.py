"""Charts of a model's metrics, each a `Figure` in the style of `chart_style`, which also writes it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.chart_style import (
    FIRST,
    GREY,
    INK,
    ORANGE,
    PAPER,
    SECOND,
    SKY,
    SMALL,
    THIRD,
    WIDTH_INCHES,
    Series,
    in_own_style,
    in_percent,
)
from pipeline.evaluation.metrics import ClassificationReport

_FEW_CLASSES = 6
"""Up to so many a cell of the confusion matrix has room for the count beside the share."""
_MARKERS = 15
"""On a line; more of them would hide it."""


@in_own_style
def confusion_chart(report: ClassificationReport) -> Figure:
    """The confusion matrix, coloured by the share of the row: each share, with its count where there is room."""
    counts = np.array(report.confusion)
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # an absent class has a row of zeros
    classes = len(report.class_names)
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(of_row, cmap="Blues", vmin=0, vmax=1, edgecolors=PAPER, linewidth=1)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    for row, column in np.ndindex(classes, classes):
        share = f"{100 * of_row[row, column]:.1f} %"
        text = f"{counts[row, column]}\n{share}" if classes <= _FEW_CLASSES else f"{100 * of_row[row, column]:.0f}"
        colour = "white" if of_row[row, column] > 0.55 else "black"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=colour)
    places = np.arange(classes) + 0.5
    axes.set_xticks(places, report.class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, report.class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"Confusion of {report.images} images\naccuracy {100 * report.accuracy:.2f} %",
    )
    of_whole = "images, share of the true class (%)" if classes <= _FEW_CLASSES else "share of the true class (%)"
    figure.supxlabel(f"in a cell: {of_whole}", fontsize=SMALL, color=GREY)
    return figure


@in_own_style
def reliability_diagram(report: ClassificationReport) -> Figure:
    """Accuracy against confidence, bin by bin, over a histogram of the confidences."""
    figure = Figure(figsize=(WIDTH_INCHES, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    low = np.array([bin_.low for bin_ in report.reliability])
    width = np.array([bin_.high for bin_ in report.reliability]) - low
    filled = [bin_ for bin_ in report.reliability if bin_.count]
    top.bar(
        low,
        [bin_.accuracy or 0 for bin_ in report.reliability],
        width,
        align="edge",
        color=SKY,
        edgecolor=PAPER,
        label="accuracy in the bin",
    )
    top.plot([0, 1], [0, 1], linestyle="--", color=INK, linewidth=1.2, label="perfect calibration")
    top.plot(
        [bin_.confidence for bin_ in filled],
        [bin_.accuracy for bin_ in filled],
        linestyle="none",
        marker="o",
        markersize=5,
        color=ORANGE,
        label="at the bin's mean confidence",
    )
    top.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        ylabel="accuracy (%)",
        title=f"Reliability, {report.images} images\n"
        f"ECE {100 * report.ece:.2f} %, largest gap {100 * report.max_calibration_error:.2f} %",
    )
    top.legend(loc="upper left")
    bottom.bar(low, [bin_.count for bin_ in report.reliability], width, align="edge", color=GREY, edgecolor=PAPER)
    bottom.set(xlabel="confidence of the prediction (%)", ylabel="images")
    bottom.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for axis in (top.yaxis, bottom.xaxis):
        in_percent(axis)
    return figure


@in_own_style
def class_scores_chart(report: ClassificationReport) -> Figure:
    """Precision, recall and F1 of every class as grouped bars, one group below the other."""
    classes = len(report.class_names)
    figure = Figure(figsize=(WIDTH_INCHES, 1.5 + 0.56 * classes), layout="constrained")
    axes = figure.subplots()
    places = np.arange(classes)
    for offset, name, series in ((-0.27, "precision", FIRST), (0.0, "recall", SECOND), (0.27, "f1", THIRD)):
        lengths = [getattr(scores, name) for scores in report.classes]
        label = "F1" if name == "f1" else name
        bars = axes.barh(
            places + offset, lengths, 0.25, color=series.colour, hatch=series.hatch, edgecolor=PAPER, label=label
        )
        axes.bar_label(bars, [f"{100 * length:.0f}" for length in lengths], fontsize=SMALL, padding=2)
    axes.set_yticks(places, [f"{scores.name}\n({scores.support} images)" for scores in report.classes])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 1.08),
        ylim=(classes - 0.5, -0.5),
        xlabel="score (%)",
        title=f"Scores by class\nmacro-F1 {100 * report.macro_f1:.2f} %",
    )
    in_percent(axes.xaxis)
    axes.set_xticks(np.linspace(0, 1, 6))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@in_own_style
def learning_curves(rows: Sequence[Mapping[str, float]], best_epoch: int) -> Figure:
    """Loss, accuracy and learning rate by epoch.

    A row holds `epoch` and any of `train/loss`, `train/accuracy`, `validation/loss`, `validation/accuracy` and
    `learning_rate` (accuracies as fractions); missing values are left out. `best_epoch` is marked.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 6.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    loss, accuracy, rate = panels
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        _draw(axes, rows, f"train/{quantity}", "training (augmented)", FIRST)
        _draw(axes, rows, f"validation/{quantity}", "validation", SECOND)
    _draw(rate, rows, "learning_rate", "learning rate", THIRD)
    for axes in panels:
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch ({best_epoch})")
    loss.set(ylabel="cross entropy (nats)", title="Learning curves")
    accuracy.set(ylabel="accuracy (%)")
    in_percent(accuracy.yaxis)
    rate.set(xlabel="epoch", ylabel="learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    epochs = [row["epoch"] for row in rows]
    rate.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if loss.get_legend_handles_labels()[0]:
        loss.legend()
    for axes in panels:
        axes.grid(visible=True)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, float]], key: str, label: str, series: Series) -> None:
    points = [(row["epoch"], row[key]) for row in rows if key in row]
    if points:
        epochs, values = zip(*points, strict=True)
        every = -(-len(points) // _MARKERS)
        axes.plot(
            epochs, values, color=series.colour, marker=series.marker, markevery=every, linestyle=series.line,
            label=label,
        )  # fmt: skip
