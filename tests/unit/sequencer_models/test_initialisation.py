import pytest
import torch
from timm.models.sequencer import Sequencer2d
from torch import nn

from sequencer_models import catalog

TINY = {
    "small": {"dims": (16, 24), "depths": (1, 1)},
    "vanilla": {"hidden": 12, "layers": 2},
}


def lstms(name: str, **fields: object) -> list[nn.LSTM]:
    torch.manual_seed(0)
    model = catalog.build(name, 4, **TINY[name], **fields)
    return [module for module in model.modules() if isinstance(module, nn.LSTM)]


def weights(rnns: list[nn.LSTM]) -> dict[str, torch.Tensor]:
    return {f"{n} {name}": weight for n, rnn in enumerate(rnns) for name, weight in rnn.named_parameters()}


def test_he_scales_linear_weights_by_fan_in_and_residual_ends_by_depth():
    model = catalog.build("small", 10, init="he")
    block = model.levels[1].blocks[0]
    assert block.mlp.fc1.weight.std().item() == pytest.approx((2 / 384) ** 0.5, rel=0.02)
    assert block.mlp.fc2.weight.std().item() == pytest.approx((2 / 1152 / 14) ** 0.5, rel=0.02)
    assert block.mixer.fc.weight.std().item() == pytest.approx((2 / 384 / 14) ** 0.5, rel=0.02)
    assert model.head.weight.std().item() == pytest.approx((1 / 384) ** 0.5, rel=0.05)
    assert block.mlp.fc1.bias.abs().max() == 0
    assert block.mixer.rnn_v.weight_hh_l0.abs().max().item() == pytest.approx(96**-0.5, rel=1e-3)


@pytest.mark.parametrize("name", ["small", "medium"])
def test_he_keeps_the_token_stream_near_unit_variance_at_every_depth(name):
    model = catalog.build(name, 10)
    deviations = []
    for block in (block for level in model.levels for block in level.blocks):
        block.register_forward_hook(lambda module, inputs, out: deviations.append((out - inputs[0]).std().item()))
    model(torch.randn(4, 3, 32, 32))
    assert all(0.05 < deviation < 0.6 for deviation in deviations), deviations


def test_paper_init_has_the_spread_of_the_papers_code():
    model = catalog.build("small", 10, init="paper")
    peer = Sequencer2d(
        10, layers=(4, 3), patch_sizes=(4, 2), embed_dims=(192, 384), hidden_sizes=(48, 96), mlp_ratios=(3.0, 3.0)
    )
    ours, theirs = model.levels[1].blocks[0], peer.stages[1].blocks[0]
    pairs = [
        (model.stem.proj.weight, peer.stem.proj.weight),
        (model.levels[1].merging.down.weight, peer.stages[1].downsample.down.weight),
        (ours.mlp.fc1.weight, theirs.mlp_channels.fc1.weight),
        (ours.mlp.fc1.bias, theirs.mlp_channels.fc1.bias),
        (ours.mixer.fc.weight, theirs.rnn_tokens.fc.weight),
        (ours.mixer.rnn_h.weight_hh_l0, theirs.rnn_tokens.rnn_h.weight_hh_l0),
    ]
    for a, b in pairs:
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.05)
    assert model.head.weight.abs().max() == peer.head.fc.weight.abs().max() == 0
    assert ours.mixer.fc.bias.abs().max() == 0


@pytest.mark.parametrize(("name", "biases"), [("small", 8), ("vanilla", 4)])
def test_forget_bias_is_added_to_one_bias_of_every_forget_gate_and_changes_nothing_else(name, biases):
    plain, opened = weights(lstms(name)), weights(lstms(name, forget_bias=1.5))
    assert plain.keys() == opened.keys()
    differences = {key: opened[key].detach() - plain[key].detach() for key in plain}
    changed = {key: difference for key, difference in differences.items() if difference.abs().max() > 0}
    assert len(changed) == biases, "of both directions of every layer"
    for key, difference in changed.items():
        assert "bias_ih" in key
        i, f, g, o = difference.chunk(4)
        torch.testing.assert_close(f, torch.full_like(f, 1.5))
        assert max(gate.abs().max() for gate in (i, g, o)) == 0


@pytest.mark.parametrize("name", TINY)
def test_orthogonal_recurrent_weights_keep_the_length_of_a_state_in_every_gate(name):
    plain, orthogonal = weights(lstms(name)), weights(lstms(name, recurrent_init="orthogonal"))
    for key, weight in orthogonal.items():
        bound = plain[key].abs().max().item() * 1.5
        if "weight_hh" not in key:
            assert weight.abs().max().item() < bound, "uniform, as before"
            continue
        gates = weight.detach().split(weight.shape[1])
        for gate in gates:
            torch.testing.assert_close(gate @ gate.T, torch.eye(len(gate)), rtol=0, atol=1e-5)
        assert not any(torch.equal(gates[0], gate) for gate in gates[1:]), "each gate has its own"
        assert weight.requires_grad


@pytest.mark.parametrize("init", ["he", "paper"])
@pytest.mark.parametrize("name", TINY)
def test_attention_pooling_starts_as_the_mean(name, init):
    mean, attention = (
        catalog.build(name, 4, **TINY[name], init=init, pooling=each) for each in ("mean", "attention")
    )
    left = attention.load_state_dict(mean.state_dict(), strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["pooling.score.weight"], [])
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(attention.eval()(images), mean.eval()(images))
