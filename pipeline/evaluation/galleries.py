"""Galleries of images: samples of a prepared data set, and a model's most confident mistakes.

Legend: N images of H x W pixels, uint8 RGB.
"""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipeline.evaluation.chart_style import SMALL, WIDTH_INCHES, in_own_style
from pipeline.evaluation.predictions import Mistake
from pipeline.percent import whole_percent

_GAP_PX = 2
_COLUMNS = 4  # of a gallery of mistakes
_PER_CLASS = 10  # images of each class on a contact sheet


@in_own_style
def mistakes_gallery(
    images: npt.NDArray[np.uint8], mistakes: Sequence[Mistake], class_names: Sequence[str]
) -> Figure:
    """The misclassified images (rows of N x H x W x 3), each with its true and predicted class and the confidence.

    If there are no mistakes, the figure says so. Raises `ValueError` for images of another shape or type.
    """
    _check(images)
    if not mistakes:
        figure = Figure(figsize=(WIDTH_INCHES, 1.6))
        figure.text(0.5, 0.5, "No mistakes: every image was classified correctly", ha="center", va="center")
        return figure
    columns = min(_COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // columns)
    # Wide enough for the title, however few the columns are.
    figure = Figure(figsize=(max(1.2 * columns, 4.5), 1.6 * rows + 0.4), layout="constrained")
    figure.suptitle(f"Most confident mistakes ({len(mistakes)})")
    for axes, mistake in zip_longest(figure.subplots(rows, columns, squeeze=False).flat, mistakes):
        axes.set_axis_off()
        if mistake is None:
            continue
        axes.imshow(images[mistake.row], interpolation="nearest")
        label, predicted = class_names[mistake.label], class_names[mistake.predicted]
        axes.set_title(
            f"{label} taken for\n{predicted} {whole_percent(mistake.confidence)}",
            fontsize=SMALL,
            loc="center",
            fontweight="normal",
        )
    return figure


@in_own_style
def contact_sheet(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
) -> Figure:
    """The first images (of N x H x W x 3) of every class, a row per class with its name and count.

    Cells without an image stay white. Raises `ValueError` for other shapes or types, or labels without a name.
    """
    _check(images)
    if labels.shape != (len(images),):
        raise ValueError(f"{len(images)} images need as many labels, not an array of shape {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"labels must lie in 0..{len(class_names) - 1}")
    _, height, width, _ = images.shape
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    classes = len(class_names)
    sheet = np.full((classes * step_y - _GAP_PX, _PER_CLASS * step_x - _GAP_PX, 3), 255, dtype=np.uint8)
    for row in range(classes):
        for column, image in enumerate(images[np.flatnonzero(labels == row)[:_PER_CLASS]]):
            sheet[row * step_y : row * step_y + height, column * step_x : column * step_x + width] = image

    figure = Figure(figsize=(WIDTH_INCHES, 0.5 + 0.36 * classes), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest")
    counts = np.bincount(labels, minlength=classes)
    axes.set_yticks(
        [row * step_y + (height - 1) / 2 for row in range(classes)],
        [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True)],
    )
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Samples by class, {len(images)} images in all")
    return figure


def _check(images: npt.NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be uint8 of shape N x H x W x 3, not {images.dtype} of shape {images.shape}")
