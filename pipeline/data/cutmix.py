"""CutMix (Yun et al. 2019, arXiv 1905.04899): a rectangle of each image comes from another one of its batch."""

import dataclasses
import math

import torch

from pipeline.data.batch import Batch


def cut_mixed(batch: Batch, draws: torch.Generator) -> Batch:
    """The batch with the same rectangle of every image replaced by that of another image.

    The rectangle's share of the image is uniform and its centre is anywhere, so that a border may cut it (the paper's
    choices, alpha 1).
    """
    B, _, H, W = batch.images.shape
    area, y, x = torch.rand(3, generator=draws).tolist()
    others = torch.randperm(B, generator=draws)
    rows, columns = _within(y, math.sqrt(area), H), _within(x, math.sqrt(area), W)
    images = batch.images.clone()
    images[:, :, rows, columns] = batch.images[others, :, rows, columns]
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (H * W)
    labels, beside = batch.labels, batch.labels[others]
    if share < 0.5:
        labels, beside, share = beside, labels, 1 - share
    return dataclasses.replace(batch, images=images, labels=labels, labels_beside=beside, share=share)


def _within(centre: float, length: float, side: int) -> slice:
    """The pixels of a side that are covered: `centre` and `length` are shares of it."""
    low, high = (round(side * (centre + half)) for half in (-length / 2, length / 2))
    return slice(max(0, low), min(side, high))
