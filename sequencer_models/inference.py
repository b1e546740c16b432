"""From uint8 images to class probabilities, for the evaluation and for registered models alike.

N images, K classes, 32 x 32 pixels, C = 3 channels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    images: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mirrored: bool = False,
    batch_size: int = 250,
    done: Callable[[int], Any] = lambda count: None,
) -> NDArray[np.float32]:
    """Class probabilities (N x K float32) of images (N x 32 x 32 x C uint8), on the CPU in fp32, in evaluation mode.

    `mean` and `std` are per channel on the 0..255 scale. `mirrored`: each image's are the mean of its own and those
    of its mirror image, left to right. At most `batch_size` images are in memory as floats, or twice as many with
    `mirrored`; `done` is called with how many images are finished.
    """
    model = model.cpu().float().eval()
    shift = torch.tensor(mean).view(-1, 1, 1)
    scale = torch.tensor(std).view(-1, 1, 1).reciprocal()
    parts = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.array(images[start : start + batch_size])).permute(0, 3, 1, 2)
        normalised = (pixels.float() - shift) * scale  # n x C x 32 x 32
        found = torch.softmax(model(normalised), dim=1)
        if mirrored:
            found = (found + torch.softmax(model(normalised.flip(3)), dim=1)) / 2
        parts.append(found.numpy())
        done(start + len(pixels))
    if not parts:
        return np.empty((0, 0), np.float32)
    return np.concatenate(parts)
