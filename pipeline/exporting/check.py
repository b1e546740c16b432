"""The check of an export: what it says of real images, against what seqpipe says of them.

Legend: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

IMAGES = 1000
LARGEST_DIFFERENCE = 1e-4
"""Of a probability: an export that differs by more is refused."""
BATCHES = (1, 2, 33, 250)
"""Images at once, in turn: a graph that works only for the batch it was traced with must fail."""


class Probabilities(Protocol):
    """What gives probabilities."""

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`N x 32 x 32 x 3` pixels to `N x K`."""
        ...


@dataclass(frozen=True)
class Check:
    """How an export compares with seqpipe on the same images."""

    runtime: str
    images: int
    largest_difference: float
    """Of any probability of any image."""
    other_classes: int
    """Images whose most probable class is another one."""

    @property
    def in_words(self) -> str:
        """One line."""
        return (
            f"on {self.images} test images in {self.runtime} probabilities differ by {self.largest_difference:.1e} "
            f"at most (allowed: {LARGEST_DIFFERENCE:.0e})"
        )


def check(exported: Probabilities, pixels: NDArray[np.uint8], expected: NDArray[np.float32], runtime: str) -> Check:
    """Compare what an export says of pixels with what is expected (N x K).

    Raises:
        ModelError: it differs by more than `LARGEST_DIFFERENCE`.
    """
    found = in_batches(exported, pixels, BATCHES)
    if found.shape != expected.shape:
        raise ModelError(f"not exported: in {runtime} it gives {found.shape} probabilities, not {expected.shape}")
    difference = float(np.abs(found.astype(np.float64) - expected).max())
    done = Check(runtime, len(pixels), difference, int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()))
    if not difference <= LARGEST_DIFFERENCE:  # so that NaN is refused too
        raise ModelError(f"not exported: {done.in_words}\nThis is a fault in seqpipe, or in this build of {runtime}.")
    return done


def in_batches(model: Probabilities, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> NDArray[np.float32]:
    """The probabilities of pixels (N x K), computed in batches of these sizes in turn."""
    parts: list[NDArray[np.float32]] = []
    begin = 0
    while begin < len(pixels):
        size = sizes[len(parts) % len(sizes)]
        parts.append(model.probabilities(pixels[begin : begin + size]))
        begin += size
    return np.concatenate(parts)
