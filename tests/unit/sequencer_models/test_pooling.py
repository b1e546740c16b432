import pytest
import torch

from sequencer_models.pooling import AttentionPooling, MeanPooling, pooling_of


def by_hand(pooling: AttentionPooling, x: torch.Tensor) -> torch.Tensor:
    """Token by token: e^score of each, over their sum."""
    [weight] = pooling.score.weight
    pooled = []
    for tokens in x.flatten(1, -2):
        shares = [torch.exp(weight @ token) for token in tokens]
        pooled.append(sum(share * token for share, token in zip(shares, tokens, strict=True)) / sum(shares))
    return torch.stack(pooled)


@pytest.mark.parametrize("shape", [(3, 4, 2, 6), (3, 5, 6), (2, 1, 6)])
def test_attention_is_a_mean_weighted_by_a_softmax_of_scores(shape):
    pooling, ours = AttentionPooling(6), torch.randn(shape, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    out, expected = pooling(ours), by_hand(pooling, theirs)
    torch.testing.assert_close(out, expected)
    [grad] = torch.autograd.grad(out.square().sum(), pooling.score.weight, retain_graph=True)
    [grad_expected] = torch.autograd.grad(expected.square().sum(), pooling.score.weight, retain_graph=True)
    torch.testing.assert_close(grad, grad_expected, rtol=1e-4, atol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_attention_under_bfloat16_weighs_in_float32():
    pooling, x = AttentionPooling(64), torch.randn(8, 16, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(x.bfloat16())
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pooling(x).detach(), rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 4, 2, 6), (3, 5, 6)])
def test_the_mean_is_over_the_tokens_of_a_grid_or_of_a_sequence(shape):
    x = torch.randn(shape)
    assert not list(MeanPooling().parameters())
    assert torch.equal(MeanPooling()(x), x.mean(dim=(1, 2) if len(shape) == 4 else 1))


def test_a_pooling_is_found_by_its_name():
    assert isinstance(pooling_of("mean", 6), MeanPooling)
    assert isinstance(pooling_of("attention", 6), AttentionPooling)
