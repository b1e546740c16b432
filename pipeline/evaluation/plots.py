"""Charts of a model's metrics; drawn without pyplot, so without a display, window or global state.

Every function returns a `Figure`; `save_figure` writes it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.evaluation.metrics import ClassificationReport

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, SKY, ORANGE, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#6E6E6E"

P = ParamSpec("P")
T = TypeVar("T")


def in_own_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in matplotlib's default style, even if a matplotlibrc asks for another (LaTeX may be missing)."""

    @functools.wraps(draw)
    def draw_in_default_style(*args: P.args, **words: P.kwargs) -> T:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*args, **words)

    return draw_in_default_style


@in_own_style
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes under the same matplotlib."""
    figure.savefig(path, format="png", dpi=120, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


@in_own_style
def confusion_chart(report: ClassificationReport) -> Figure:
    """The confusion matrix: a count and its share of the row in each cell, coloured by that share."""
    counts = np.array(report.confusion)
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # an absent class has a row of zeros
    classes = len(report.class_names)
    side = 2.6 + 0.75 * classes
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(of_row, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(classes, classes):
        axes.text(
            column,
            row,
            f"{counts[row, column]}\n{100 * of_row[row, column]:.1f} %",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if of_row[row, column] > 0.55 else "black",
        )
    axes.set_xticks(range(classes), report.class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), report.class_names)
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"Confusion matrix, {report.images} images, accuracy {100 * report.accuracy:.2f} %",
    )
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, format=PercentFormatter(xmax=1, symbol=""))
    bar.set_label("share of the true class (%)")
    return figure


@in_own_style
def reliability_diagram(report: ClassificationReport) -> Figure:
    """Accuracy against confidence, bin by bin, over a histogram of the confidences."""
    figure = Figure(figsize=(6, 7), layout="constrained")
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
        edgecolor="white",
        label="accuracy in the bin",
    )
    top.plot([0, 1], [0, 1], linestyle="--", color="black", label="perfect calibration")
    top.plot(
        [bin_.confidence for bin_ in filled],
        [bin_.accuracy for bin_ in filled],
        linestyle="none",
        marker="o",
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
    bottom.bar(low, [bin_.count for bin_ in report.reliability], width, align="edge", color=GREY, edgecolor="white")
    bottom.set(xlabel="confidence of the prediction (%)", ylabel="images")
    bottom.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for axis in (top.yaxis, bottom.xaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    return figure


@in_own_style
def class_scores_chart(report: ClassificationReport) -> Figure:
    """Precision, recall and F1 of every class as grouped bars."""
    classes = len(report.class_names)
    figure = Figure(figsize=(2.4 + 0.75 * classes, 4.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(classes)
    for offset, name, colour in ((-0.27, "precision", BLUE), (0.0, "recall", ORANGE), (0.27, "f1", GREEN)):
        heights = [getattr(scores, name) for scores in report.classes]
        bars = axes.bar(places + offset, heights, 0.25, color=colour, label="F1" if name == "f1" else name)
        axes.bar_label(bars, [f"{100 * height:.0f}" for height in heights], fontsize=7, padding=1)
    axes.set_xticks(
        places,
        [f"{scores.name}\n({scores.support})" for scores in report.classes],
        rotation=45 if classes > 6 else 0,
    )
    axes.set(
        xlim=(-0.6, classes - 0.4),
        ylim=(0, 1.08),
        xlabel="class (images of it)",
        ylabel="score (%)",
        title=f"Scores by class, macro-F1 {100 * report.macro_f1:.2f} %",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    axes.set_yticks(np.linspace(0, 1, 6))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@in_own_style
def learning_curves(rows: Sequence[Mapping[str, float]], best_epoch: int) -> Figure:
    """Loss, accuracy and learning rate by epoch.

    A row holds `epoch` and any of `train/loss`, `train/accuracy`, `validation/loss`, `validation/accuracy` and
    `learning_rate` (accuracies as fractions); missing values are left out. `best_epoch` is marked.
    """
    figure = Figure(figsize=(7, 8), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.2])
    loss, accuracy, rate = panels
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        _draw(axes, rows, f"train/{quantity}", "training (augmented)", BLUE, "o", "-")
        _draw(axes, rows, f"validation/{quantity}", "validation", ORANGE, "s", "--")
    _draw(rate, rows, "learning_rate", "learning rate", GREEN, ".", "-")
    for axes in panels:
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch ({best_epoch})")
    loss.set(ylabel="cross entropy (nats)", title="Learning curves")
    accuracy.set(ylabel="accuracy (%)")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    rate.set(xlabel="epoch", ylabel="learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    epochs = [row["epoch"] for row in rows]
    rate.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if loss.get_legend_handles_labels()[0]:
        loss.legend()
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure


def _draw(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, label: str, colour: str, marker: str, line: str
) -> None:
    points = [(row["epoch"], row[key]) for row in rows if key in row]
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, marker=marker, markersize=4, linestyle=line, label=label)
