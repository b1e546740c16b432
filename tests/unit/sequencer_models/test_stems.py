import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer_models.stems import ConvStem, PatchEmbedding


def pixel_by_pixel(stem: ConvStem, images: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The definition: each output of a convolution from its 3x3 window, then its LayerNorm; GELU in between."""
    x = images
    for n, stride in enumerate(strides):
        conv, norm = stem.convs[n], stem.norms[n]
        if n:
            x = F.gelu(x)
        padded = F.pad(x, (1, 1, 1, 1))
        rows = []
        for row in range(0, x.shape[2], stride):
            for column in range(0, x.shape[3], stride):
                window = padded[:, :, row : row + 3, column : column + 3]  # B x C x 3 x 3
                out = (window[:, None] * conv.weight).sum(dim=(2, 3, 4)) + conv.bias  # B x F
                centred = out - out.mean(dim=1, keepdim=True)
                scaled = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
                rows.append(scaled * norm.weight + norm.bias)
        x = torch.stack(rows, dim=2).unflatten(2, (x.shape[2] // stride, -1))  # B x F x height x width
    return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("first_stride", "strides"), [(1, (1, 2, 2)), (2, (2, 2, 2))])
def test_convolutions_layer_norms_and_gelus_are_those_of_the_definition(first_stride, strides):
    stem, images = ConvStem(3, (4, 6, 8), first_stride=first_stride).double(), torch.randn(2, 3, 8, 8).double()
    for norm in stem.norms:  # so that they differ from the identity
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    ours, theirs = stem(images), pixel_by_pixel(stem, images, strides)
    assert ours.shape == (2, 8 // torch.tensor(strides).prod(), 8 // torch.tensor(strides).prod(), 8)
    torch.testing.assert_close(ours, theirs)
    grads, grads_expected = (
        torch.autograd.grad(out.square().sum(), list(stem.parameters())) for out in (ours, theirs)
    )
    torch.testing.assert_close(grads, grads_expected)


@pytest.mark.parametrize(
    ("stem", "side"),
    [
        (PatchEmbedding(3, 16, 4), 8),
        (ConvStem(3, (8, 16)), 8),
        (ConvStem(3, (4, 8, 16)), 4),
        (ConvStem(3, (4, 8, 16), first_stride=1, whitened=True), 8),
    ],
)
def test_stems_keep_the_images_apart(stem, side):
    images = torch.randn(5, 3, 32, 32)
    whole = stem(images)
    assert whole.shape == (5, side, side, 16)
    changed = images.clone()
    changed[2] = 7.0
    other = stem(changed)
    untouched = [0, 1, 3, 4]
    torch.testing.assert_close(other[untouched], whole[untouched])
    assert not torch.allclose(other[2], whole[2])


def test_of_a_whitened_stem_the_filters_of_the_first_convolution_alone_are_not_trained():
    stem = ConvStem(3, (8, 16), first_stride=1, whitened=True)
    assert [name for name, parameter in stem.named_parameters() if not parameter.requires_grad] == ["convs.0.weight"]
    assert all(parameter.requires_grad for parameter in ConvStem(3, (8, 16), first_stride=1).parameters())
    stem(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert stem.convs[0].weight.grad is None
    assert stem.convs[0].bias.grad.abs().max() > 0
