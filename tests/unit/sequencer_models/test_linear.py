import pytest
import torch
import torch.nn.functional as F

from sequencer_models import kernels
from sequencer_models.kernels import Kernels
from sequencer_models.linear import TokenLinear, linear, linear_backward


@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (71, 6), (16, 8, 6), (11, 6), (6,), (2, 0, 6)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_convolution_is_the_same_map(shape, with_bias):
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(9, 6, requires_grad=True)
    bias = torch.randn(9, requires_grad=True) if with_bias else None
    given = [x, weight, bias] if bias is not None else [x, weight]
    expected = F.linear(x, weight, bias)
    kernels.select(Kernels(linear="convolution"))
    out = linear(x, weight, bias)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, given, grad), torch.autograd.grad(expected, given, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("way", ["matmul", "convolution"])
@pytest.mark.parametrize("needs_grad_x", [True, False])
def test_the_backward_pass_by_hand_is_autograds(way, needs_grad_x):
    x, weight = torch.randn(77, 6, requires_grad=True), torch.randn(9, 6, requires_grad=True)
    grad = torch.randn(77, 9)
    expected = torch.autograd.grad(F.linear(x, weight), (x, weight), grad)
    kernels.select(Kernels(linear=way))
    grad_x, grad_weight = linear_backward(grad, x.detach(), weight.detach(), needs_grad_x)
    torch.testing.assert_close(grad_weight, expected[1])
    if needs_grad_x:
        torch.testing.assert_close(grad_x, expected[0])
    else:
        assert grad_x is None


def test_what_is_selected_is_what_runs(monkeypatch):
    layer, x, taken = TokenLinear(6, 9), torch.randn(64, 6), []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *given: (taken.append("convolution"), convolve(*given))[1])
    layer(x)
    kernels.select(Kernels(linear="convolution"))
    layer(x)
    assert taken == ["convolution"]
    layer(x[1:])
    assert taken == ["convolution"], "of few tokens the product is faster"
