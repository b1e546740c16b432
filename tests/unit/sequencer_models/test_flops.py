import torch

from sequencer_models import catalog, kernels
from sequencer_models.flops import multiply_adds, training_flops
from sequencer_models.kernels import Kernels

IMAGE = torch.zeros(1, 3, 32, 32)


def test_a_block_costs_twelve_times_its_channels_squared_at_every_token() -> None:
    one, two = (catalog.build("small", 4, dims=(192,), depths=(depth,), pointwise=()) for depth in (1, 2))

    assert multiply_adds(two, IMAGE) - multiply_adds(one, IMAGE) == 8 * 8 * 12 * 192**2


def test_small_is_counted_with_its_stem_merging_pointwise_layer_and_head() -> None:
    blocks = 64 * 4 * 12 * 192**2 + 16 * 3 * 12 * 384**2
    around = 64 * 48 * 192 + 16 * 4 * 192 * 384 + 16 * 384**2 + 384 * 4

    assert training_flops(catalog.build("small", 4), IMAGE) == 2 * 3 * (blocks + around)


def test_counting_leaves_everything_as_it_was() -> None:
    chosen, model = Kernels(linear="convolution"), catalog.build("vanilla", 4, dropout=0.5)
    kernels.select(chosen)
    before = torch.get_rng_state()
    multiply_adds(model, IMAGE)
    assert kernels.selected() == chosen
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
