import pytest
import torch
from timm.models.sequencer import Sequencer2d
from torch import nn

from sequencer_models import catalog
from sequencer_models.layers import ConvStem, DropPath, PatchEmbedding, PatchMerging


def test_drop_path_drops_whole_images_and_keeps_the_expectation():
    x = torch.ones(4000, 2, 2, 3)
    dropped = DropPath(0.25)(x)
    per_image = dropped.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert sorted(set(per_image[:, 0].tolist())) == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_path_is_off_in_eval():
    x = torch.randn(64, 2, 2, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (PatchEmbedding(3, 16, 4), (5, 3, 32, 32), (5, 8, 8, 16)),
        (ConvStem(3, 16, 2), (5, 3, 32, 32), (5, 8, 8, 16)),
        (ConvStem(3, 16, 3), (5, 3, 32, 32), (5, 4, 4, 16)),
        (PatchMerging(16, 24), (5, 8, 8, 16), (5, 4, 4, 24)),
    ],
)
def test_stems_and_merging_keep_the_images_apart(layer, shape, expected):
    x = torch.randn(shape)
    whole = layer(x)
    assert whole.shape == expected
    changed = x.clone()
    changed[2] = 7.0
    other = layer(changed)
    untouched = [0, 1, 3, 4]
    torch.testing.assert_close(other[untouched], whole[untouched])
    assert not torch.allclose(other[2], whole[2])


def test_merging_sees_exactly_the_2x2_square():
    merging, x = PatchMerging(4, 6), torch.randn(1, 4, 4, 4)
    before = merging(x)
    x[0, 2:, :2] += 1.0
    changed = (merging(x) - before).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [[False, False], [True, False]]


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


def test_no_layer_keeps_statistics_of_the_data():
    for name in catalog.MODELS:
        model = catalog.build(name, 4)
        assert not list(model.buffers())
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
