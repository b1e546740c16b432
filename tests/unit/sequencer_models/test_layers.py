import pytest
import torch
from torch import nn

from sequencer_models import catalog
from sequencer_models.layers import DropPath, PatchMerging


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


def test_merging_keeps_the_images_apart():
    merging, x = PatchMerging(16, 24), torch.randn(5, 8, 8, 16)
    whole = merging(x)
    assert whole.shape == (5, 4, 4, 24)
    changed = x.clone()
    changed[2] = 7.0
    other = merging(changed)
    untouched = [0, 1, 3, 4]
    torch.testing.assert_close(other[untouched], whole[untouched])
    assert not torch.allclose(other[2], whole[2])


def test_merging_sees_exactly_the_2x2_square():
    merging, x = PatchMerging(4, 6), torch.randn(1, 4, 4, 4)
    before = merging(x)
    x[0, 2:, :2] += 1.0
    changed = (merging(x) - before).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [[False, False], [True, False]]


def test_no_layer_keeps_statistics_of_the_data():
    for name in catalog.MODELS:
        model = catalog.build(name, 4)
        assert not list(model.buffers())
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
