"""A batch of training images, and what they show: one class, or two of which one has the larger share."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """B images as the model takes them, with their labels."""

    images: Tensor
    """B x C x H x W float32."""
    labels: Tensor
    """B int64. Of images that are mixed of two, those with the larger share; they are what accuracy counts."""
    labels_beside: Tensor | None = None
    """B int64: those with the smaller share; None where nothing is mixed."""
    share: float = 1.0
    """That of `labels`, in every image."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> "Batch":
        """On a device."""
        beside = None if self.labels_beside is None else self.labels_beside.to(device)
        return Batch(self.images.to(device), self.labels.to(device), beside, self.share)

    def parts(self, size: int) -> Iterator["Batch"]:
        """In parts of at most `size` images."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            beside = None if self.labels_beside is None else self.labels_beside[part]
            yield Batch(self.images[part], self.labels[part], beside, self.share)
