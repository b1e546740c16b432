"""A picture of a model: its layers from top to bottom, with shapes, parameters, arithmetic and memory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from pipeline.config.schema import RunConfig
from pipeline.evaluation.chart_style import BLUE, GREY, ORANGE, TINT, in_own_style
from sequencer_models import catalog, kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.kernels import Kernels, LstmChoice
from sequencer_models.layer_summary import LayerSummary, summarise

WIDTH_INCHES = 7.9
ROW_INCHES = 0.34
"""A page of A4 has room for 30 rows."""
_LAYER, _SHAPE, _PARAMETERS, _ARITHMETIC, _MEMORY, _END = 0.0, 3.35, 4.25, 4.6, 6.2, 7.8
"""Where the columns begin, in inches; shapes and parameters end there, since they are aligned to the right."""
_BAR = 0.85
"""Inches of the longest bar."""
_CELL: dict[str, Any] = {"fontsize": 8, "va": "center"}


@dataclass(frozen=True)
class Portrait:
    """What a picture of a model shows."""

    title: str
    layers: Sequence[LayerSummary]
    parameters: int
    notes: Sequence[str]
    """Lines at its foot."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def portrait_of(config: RunConfig, depth: int) -> Portrait:
    """The portrait of a config's model; `depth` is that of `layer_summary.summarise`."""
    with torch.random.fork_rng(devices=[]):
        classes = config.data.class_names
        model = catalog.build(config.model.name, len(classes), **config.model.model_dump(exclude={"name"}))
    lstm: LstmChoice = "native" if this_machine().native_kernel[0] is not None else "eager"
    before = kernels.selected()
    kernels.select(Kernels(lstm))
    try:
        layers = summarise(model, depth)
    finally:
        kernels.select(before)
    return Portrait(
        title=f"{config.model.name}, {len(classes)} classes",
        layers=layers,
        parameters=sum(weight.numel() for weight in model.parameters()),
        notes=(
            *_legend_of_shapes(layers),
            "Arithmetic: linear maps, convolutions and LSTMs of a forward pass, two operations a multiply-add.",
            f"Memory: what training keeps for the backward pass, in fp32 with the {lstm} LSTM; weights do not count.",
        ),
    )


def _legend_of_shapes(layers: Sequence[LayerSummary]) -> Sequence[str]:
    """What the numbers of a shape are, where some layers of the model give images of features."""
    if not any(len(layer.output) == 3 for layer in layers):
        return ()
    return ("Gives: for an image, rows x columns x channels; a convolution gives channels x rows x columns.",)


@in_own_style
def draw_model(portrait: Portrait) -> Figure:
    """The picture, in the width of a page."""
    rows = len(portrait.layers)
    height = ROW_INCHES * (rows + 3.2) + 0.2 * len(portrait.notes)
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-0.1, _END)
    axes.set_ylim(-rows - 0.9 - 0.2 / ROW_INCHES * len(portrait.notes), 2.3)
    axes.axis("off")
    axes.text(_LAYER, 1.8, portrait.title, fontsize=12, fontweight="bold", va="center")
    _head(axes)
    arithmetic = [layer.multiply_adds for layer in portrait.layers]
    memory = [layer.kept_bytes for layer in portrait.layers]
    for row, layer in enumerate(portrait.layers):
        _layer(axes, -row, layer, is_last=row == rows - 1)
        axes.text(_PARAMETERS, -row, f"{layer.parameters:,}" if layer.parameters else "", ha="right", **_CELL)
        _share(axes, row, _ARITHMETIC, arithmetic, BLUE)
        _share(axes, row, _MEMORY, memory, ORANGE)
    _groups(axes, portrait.layers)
    axes.plot([_LAYER, _END - 0.1], [0.5 - rows] * 2, color=GREY, linewidth=0.6)
    axes.text(_LAYER, -rows - 0.1, "in all", fontweight="bold", **_CELL)
    axes.text(_PARAMETERS, -rows - 0.1, f"{portrait.parameters:,}", ha="right", **_CELL)
    axes.text(_ARITHMETIC, -rows - 0.1, f"{2 * sum(arithmetic) / 1e9:.3f} GFLOP an image", **_CELL)
    axes.text(_MEMORY, -rows - 0.1, f"{sum(memory) / 1e6:.2f} MB an image", **_CELL)
    for number, note in enumerate(portrait.notes):
        axes.text(_LAYER, -rows - 0.9 - 0.2 / ROW_INCHES * number, note, fontsize=7, color=GREY, va="center")
    return figure


@in_own_style
def save_picture(figure: Figure, path: Path, format: Literal["svg", "png"]) -> None:
    """Write a picture; the same figure gives the same bytes under the same matplotlib."""
    with matplotlib.rc_context({"svg.hashsalt": "seqpipe"}):
        figure.savefig(path, format=format, dpi=150, metadata={"Date" if format == "svg" else "Software": None})


def _head(axes: Axes) -> None:
    for x, text, side in (
        (_LAYER, "layer", "left"),
        (_SHAPE, "gives", "right"),
        (_PARAMETERS, "parameters", "right"),
        (_ARITHMETIC, "arithmetic", "left"),
        (_MEMORY, "memory in training", "left"),
    ):
        axes.text(x, 0.95, text, ha=side, color=GREY, fontsize=8, va="center")


def _layer(axes: Axes, y: float, layer: LayerSummary, *, is_last: bool) -> None:
    """The box of a layer with its name, kind and shape, and the arrow to the next one."""
    box = FancyBboxPatch(
        (_LAYER + 0.15, y - 0.32), 2.35, 0.64, boxstyle="round,pad=0,rounding_size=0.05",
        mutation_aspect=1 / ROW_INCHES, facecolor=TINT, edgecolor=BLUE, linewidth=0.8,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(_LAYER + 0.23, y, layer.in_words, **_CELL)
    axes.text(_LAYER + 2.42, y, layer.kind, ha="right", color=GREY, fontsize=6, va="center")
    axes.text(_SHAPE, y, " x ".join(map(str, layer.output)), ha="right", **_CELL)
    if not is_last:
        axes.annotate(
            "", (_LAYER + 1.3, y - 0.68), (_LAYER + 1.3, y - 0.32),
            arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.8},
        )  # fmt: skip


def _share(axes: Axes, row: int, x: float, parts: Sequence[int], colour: str) -> None:
    """The share of a row in percent, and a bar for it; that of the largest part has the whole length."""
    whole, largest = max(sum(parts), 1), max(*parts, 1)
    axes.add_patch(Rectangle((x, -row - 0.2), _BAR * parts[row] / largest, 0.4, facecolor=colour, linewidth=0))
    axes.text(x + _BAR + 0.5, -row, f"{100 * parts[row] / whole:.1f} %", ha="right", **_CELL)


def _groups(axes: Axes, layers: Sequence[LayerSummary]) -> None:
    """A line beside the layers that are parts of one."""
    for group, members in groupby(enumerate(layers), key=lambda one: one[1].name.split(".")[:2]):
        rows = [row for row, _ in members]
        if len(group) > 1 and len(rows) > 1:
            axes.plot([_LAYER + 0.05] * 2, [0.32 - rows[0], -0.32 - rows[-1]], color=BLUE, linewidth=2)
