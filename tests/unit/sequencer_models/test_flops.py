import pytest
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


@pytest.mark.parametrize("mixing", ["rows", "columns"])
def test_a_block_with_one_axis_costs_a_twelfth_more(mixing: str) -> None:
    one, two = (
        catalog.build("small", 4, dims=(192,), depths=(depth,), pointwise=(), mixing=mixing) for depth in (1, 2)
    )

    assert multiply_adds(two, IMAGE) - multiply_adds(one, IMAGE) == 8 * 8 * 13 * 192**2


def test_a_stem_of_three_convolutions_and_a_pooling_by_attention_are_counted() -> None:
    plain, deep = (catalog.build("small", 4, **fields) for fields in ({}, {"stem": "deep", "pooling": "attention"}))
    convolutions = [32 * 32 * 27 * 48, 16 * 16 * 9 * 48 * 96, 8 * 8 * 9 * 96 * 192]
    scores = 16 * 384

    difference = sum(convolutions) - 64 * 48 * 192 + scores
    assert multiply_adds(deep, IMAGE) - multiply_adds(plain, IMAGE) == difference
    assert training_flops(deep, IMAGE) - training_flops(plain, IMAGE) == 2 * 3 * difference


def test_filters_that_are_not_trained_cost_their_forward_pass_alone() -> None:
    trained, fixed = (catalog.build("small", 4, stem="deep", whitened=whitened) for whitened in (False, True))

    assert multiply_adds(fixed, IMAGE) == multiply_adds(trained, IMAGE)
    assert training_flops(trained, IMAGE) - training_flops(fixed, IMAGE) == 2 * 2 * 32 * 32 * 27 * 48


def test_counting_leaves_everything_as_it_was() -> None:
    chosen, model = Kernels(linear="convolution"), catalog.build("vanilla", 4, dropout=0.5)
    kernels.select(chosen)
    before = torch.get_rng_state()
    multiply_adds(model, IMAGE)
    assert kernels.selected() == chosen
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
