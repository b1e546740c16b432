"""Random changes of the training images: shift, mirror, cut out."""

from typing import Literal

import torch
from torch import Tensor

from pipeline.config.schema import AugmentConfig


def augmented(
    images: Tensor, config: AugmentConfig, draws: torch.Generator, mirrored: Tensor | None = None
) -> Tensor:
    """Shift, mirror and cut out, each image with its own draws. B x C x H x W uint8 in and out; blank is 0.

    mirrored: which of them are, B bool; None draws it.
    """
    B, C, H, W = images.shape
    if config.translate_pixels:
        reach = config.translate_pixels
        padded = _padded(images, reach, config.padding)
        top, left = torch.randint(0, 2 * reach + 1, (2, B, 1), generator=draws)
        rows = (top + torch.arange(H)).view(B, 1, H, 1)
        columns = (left + torch.arange(W)).view(B, 1, 1, W)
        images = padded[torch.arange(B).view(B, 1, 1, 1), torch.arange(C).view(1, C, 1, 1), rows, columns]
    if config.flip:
        if mirrored is None:
            mirrored = torch.rand(B, generator=draws) < 0.5
        images = torch.where(mirrored.view(B, 1, 1, 1), images.flip(3), images)
    if config.cutout_pixels:
        side = config.cutout_pixels
        y, x = torch.randint(0, H, (2, B, 1, 1, 1), generator=draws)  # centres, so that corners are cut less
        rows, columns = torch.arange(H).view(1, 1, H, 1), torch.arange(W).view(1, 1, 1, W)
        low, high = side // 2, side - side // 2
        blank = (rows >= y - low) & (rows < y + high) & (columns >= x - low) & (columns < x + high)
        images = images.masked_fill(blank, 0)
    return images


def _padded(images: Tensor, reach: int, padding: Literal["zeros", "reflect"]) -> Tensor:
    """`reach` more pixels on every side. Torch's own reflection takes no uint8."""
    if padding == "zeros":
        return torch.nn.functional.pad(images, (reach,) * 4)
    rows, columns = (_reflected(torch.arange(-reach, side + reach), side) for side in images.shape[2:])
    return images[:, :, rows][..., columns]


def _reflected(places: Tensor, side: int) -> Tensor:
    """Places beyond a border, mirrored at the outermost pixel."""
    return side - 1 - (side - 1 - places.abs()).abs()
