"""Which pixels counted, by occlusion: squares of the image are covered in turn, and the model is asked each time.

It says what this model depends on in this image, not why; a covered square is itself something
that the model never saw.

S = 9 x 9 squares, G = 8 x 8 cells of 4 x 4 pixels, K classes, 32 x 32 pixels, 3 channels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.images import SIDE

CELL = 4
"""Pixels between two squares, and on a side of what gets one figure."""
SQUARE = 8
"""Pixels on a side of what is covered: two cells, so each cell is covered by four squares."""
CELLS = SIDE // CELL
STARTS = range(CELL - SQUARE, SIDE, CELL)
"""Of the squares; the first and the last lie half outside, so that cells at the edge count as often as others."""


def covered(pixels: NDArray[np.uint8], mean: Sequence[float]) -> NDArray[np.uint8]:
    """An image (32 x 32 x 3) as it is, then with each square in the mean colour of training: 1 + S images."""
    made = np.repeat(pixels[None], 1 + len(STARTS) ** 2, axis=0)
    colour = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    for number, (top, left) in enumerate(((top, left) for top in STARTS for left in STARTS), start=1):
        made[number, max(top, 0) : top + SQUARE, max(left, 0) : left + SQUARE] = colour
    return made


def drops(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much the probability of each class falls where a cell is covered (K x 8 x 8), from those of `covered`.

    The mean over the four squares that cover the cell; below 0 where covering it raises the probability.
    """
    found = probabilities.astype(np.float64)
    side = len(STARTS)
    fall = (found[0] - found[1:]).reshape(side, side, -1)  # S as 9 x 9, then K
    each = (fall[:-1, :-1] + fall[1:, :-1] + fall[:-1, 1:] + fall[1:, 1:]) / 4  # 8 x 8 x K
    cells: NDArray[np.float64] = each.transpose(2, 0, 1)
    return cells
