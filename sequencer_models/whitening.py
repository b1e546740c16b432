"""A whitened first layer: filters that are computed from images before the training, and stay (Jordan 2024).

Shapes: B images of a batch, K values of a 3x3 patch in all channels (27 for RGB), F filters.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models.stems import ConvStem

EPS = 5e-4
"""Added to each eigenvalue, so that directions in which images hardly vary are not blown up (Jordan 2024)."""
AT_ONCE = 50
"""Images whose patches are in memory at once: 10 MB of them."""


def whiten(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the filters of a whitened stem from images, `B x in_channels x height x width` normalised, in batches.

    To be called once, before the first step: from then on they are weights like others, in every state dict. A model
    without a whitened stem is left as it is, and no image is asked for. No random number is drawn.
    """
    for stem in (module for module in model.modules() if isinstance(module, ConvStem) and module.whitened):
        weight = stem.convs[0].weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.copy_(whitening_filters(_covariance(batches), len(weight)).view(weight.shape))


def whitening_filters(covariance: Tensor, count: int) -> Tensor:
    """`count` filters (F x K) for patches with this covariance (K x K): eigenvectors over sqrt(eigenvalue + EPS).

    Each eigenvector comes twice, with both signs, since a rectifier follows (Jordan 2024, arXiv 2404.00498, section
    3.2); those of the largest eigenvalues first. Where there are fewer than 2 K filters the last ones are left out;
    where there are more, they begin again with the first.
    """
    values, vectors = torch.linalg.eigh(covariance)  # in ascending order; vectors in columns
    filters = (vectors / (values + EPS).sqrt()).T.flip(0)  # K x K, one in each row
    # eigh leaves the sign open: the largest entry of the first of each pair is positive, on every machine
    largest = filters.gather(1, filters.abs().argmax(dim=1, keepdim=True))
    filters = filters * largest.sign()
    pairs = torch.stack([filters, -filters], dim=1).flatten(0, 1)  # 2K x K
    return pairs[torch.arange(count) % len(pairs)]


def _covariance(batches: Iterable[Tensor]) -> Tensor:
    """The covariance (K x K, float64) of all 3x3 patches, in the order of a convolution's weights."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for images in (part for batch in batches for part in torch.split(batch, AT_ONCE)):
        patches = F.unfold(images.double(), kernel_size=3)  # B x K x patches of an image
        count += patches.shape[0] * patches.shape[2]
        total = total + patches.sum(dim=(0, 2))
        products = products + (patches @ patches.mT).sum(dim=0)
    mean = total / count
    return products / count - torch.outer(mean, mean)
