"""Batches of images from the arrays on disk: shuffled and augmented for training, or plain.

B images in a batch, H = W pixels on a side, C colour channels. Every random draw is a function of (seed, epoch, batch
number), so training can resume in the middle of an epoch from its position alone, and micro-batches change no draw.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.schema import AugmentConfig
from pipeline.data.augmentation import augmented
from pipeline.data.batch import Batch
from pipeline.data.cutmix import cut_mixed


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels of one split, memory-mapped.

    images: N x H x W x C uint8; labels: N int64, 0..classes-1.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path, name: str) -> "LabelledImages":
        """Map a split that `prepare` wrote."""
        return cls(
            np.load(folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False),
            np.load(folder / f"{name}_labels.npy", mmap_mode="r", allow_pickle=False),
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, on the 0..255 scale of the pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """B x C x H x W uint8 -> the same shape, float32, with about zero mean and unit variance."""
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        scale = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1).reciprocal()
        return (pixels.float() - mean) * scale


class TrainBatches:
    """The training split, shuffled each epoch and augmented batch by batch."""

    def __init__(
        self, split: LabelledImages, normalise: Normalisation, augment: AugmentConfig, batch_size: int, seed: int
    ) -> None:
        self.split = split
        self.normalise = normalise
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting at number `first`."""
        order = np.random.Generator(np.random.PCG64(derive_seed(self.seed, "order", epoch))).permutation(
            len(self.split)
        )
        alternates = self.augment.flip and self.augment.alternating_flip
        mirrored = self._mirrored(epoch) if alternates else None
        for index in range(first, len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            images = torch.from_numpy(self.split.images[chosen]).permute(0, 3, 1, 2)  # B x C x H x W
            labels = torch.from_numpy(self.split.labels[chosen])
            draws = torch.Generator().manual_seed(derive_seed(self.seed, "augment", epoch, index))
            images = augmented(images, self.augment, draws, None if mirrored is None else mirrored[chosen])
            yield self._mixed(Batch(self.normalise(images), labels), epoch, index)

    def _mixed(self, batch: Batch, epoch: int, index: int) -> Batch:
        """Cut-mixed, if that is drawn for it."""
        draws = torch.Generator().manual_seed(derive_seed(self.seed, "cutmix", epoch, index))
        is_mixed = torch.rand((), generator=draws).item() < self.augment.cutmix
        return cut_mixed(batch, draws) if is_mixed else batch

    def _mirrored(self, epoch: int) -> Tensor:
        """Which images an alternating flip mirrors in an epoch: drawn in the first, then by turns (Jordan 2024)."""
        draws = np.random.Generator(np.random.PCG64(derive_seed(self.seed, "flip")))
        mirrored = torch.from_numpy(draws.random(len(self.split)) < 0.5)
        return mirrored if epoch % 2 == 0 else ~mirrored


def plain_batches(
    split: LabelledImages, normalise: Normalisation, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a split in order, not augmented: B x C x H x W float32 and B int64."""
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(np.array(split.images[start : start + batch_size]))
        labels = torch.from_numpy(np.array(split.labels[start : start + batch_size]))
        yield normalise(images.permute(0, 3, 1, 2)), labels


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
