"""What a model is made of, against counts by hand and by torch itself."""

import pytest
import torch
from torch import nn

from sequencer_models import catalog, kernels
from sequencer_models.flops import multiply_adds
from sequencer_models.kernels import Kernels
from sequencer_models.layer_summary import LayerSummary, summarise

TINY = {"small": {"dims": (16, 32), "depths": (2, 1)}, "vanilla": {"hidden": 8, "layers": 1}}


def build(name: str = "small") -> nn.Module:
    return catalog.build(name, 4, **TINY[name])


@pytest.fixture(autouse=True)
def eager():
    kernels.select(Kernels())


def test_the_parts_of_a_model_come_in_the_order_in_which_they_work():
    kinds = [(layer.name, layer.kind) for layer in summarise(build(), 1)]
    assert kinds[:3] == [
        ("stem", "PatchEmbedding"),
        ("levels.0", "Sequencer2DLevel"),
        ("levels.1", "Sequencer2DLevel"),
    ]
    assert kinds[-1] == ("head", "Linear")


def test_each_depth_takes_them_apart_once_more():
    names = [layer.name for layer in summarise(build(), 2)]
    assert [name for name in names if name.startswith("levels.")] == [
        "levels.0.blocks.0", "levels.0.blocks.1", "levels.1.merging", "levels.1.blocks.0", "levels.1.pointwise",
    ]  # fmt: skip
    inside = [layer.name for layer in summarise(build(), 3) if layer.name.startswith("levels.0.blocks.0.")]
    assert [name.rpartition(".")[2] for name in inside] == ["norm1", "mixer", "drop_path", "norm2", "mlp"]


def test_shapes_are_those_of_one_image():
    shapes = {layer.name: layer.output for depth in (1, 2) for layer in summarise(build(), depth)}
    assert shapes["stem"] == shapes["stem.norm"] == (8, 8, 16)
    assert shapes["levels.0.blocks.1"] == (8, 8, 16)
    assert shapes["levels.1"] == shapes["levels.1.merging"] == (4, 4, 32)
    assert shapes["head"] == (4,)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_parameters_and_arithmetic_add_up_to_the_whole(name, depth):
    model = build(name)
    layers = summarise(model, depth)
    assert sum(layer.parameters for layer in layers) == sum(weight.numel() for weight in model.parameters())
    assert sum(layer.multiply_adds for layer in layers) == multiply_adds(model, torch.zeros(1, 3, 32, 32))


class Known(nn.Module):
    """Layers of which is known what they keep: a linear one its input, ReLU and sigmoid what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 16)
        self.second = nn.ReLU()
        self.third = nn.Linear(16, 8)
        self.fourth = nn.Sigmoid()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fourth(self.third(self.second(self.first(images))))


def test_what_is_kept_is_counted_once_where_it_is_kept_first_and_weights_are_not():
    kept = {layer.name: layer.kept_bytes for layer in summarise(Known(), 1)}
    rows = 3 * 32 * 4  # bytes of a feature of each row of an image
    assert kept == {"first": 32 * rows, "second": 16 * rows, "third": 0, "fourth": 8 * rows}


def test_blocks_of_half_the_grid_and_twice_the_channels_keep_half_whatever_copies_of_weights_are_kept(native_kernel):
    model = catalog.build("small", 4, dims=(64, 128), depths=(1, 1))
    kernels.select(Kernels("native"))
    try:
        kept = {layer.name: layer.kept_bytes for layer in summarise(model, 2)}
    finally:
        kernels.select(Kernels())
    assert kept["levels.1.blocks.0"] == pytest.approx(kept["levels.0.blocks.0"] / 2, rel=0.05)


def test_deeper_summaries_keep_the_same_in_all():
    in_all = {depth: sum(layer.kept_bytes for layer in summarise(build(), depth)) for depth in (1, 2, 3)}
    assert in_all[1] == in_all[2]
    assert 0 < in_all[3] <= in_all[2], "what a block keeps between its layers belongs to none of them"


def test_with_the_native_kernel_the_lstm_of_the_vanilla_model_keeps_what_is_kept(native_kernel):
    kernels.select(Kernels("native"))
    try:
        kept = {layer.name: layer.kept_bytes for layer in summarise(build("vanilla"), 1)}
    finally:
        kernels.select(Kernels())
    assert kept["rnn"] > 0.8 * sum(kept.values())


def test_the_model_is_left_as_it_was():
    chosen, model = Kernels(linear="convolution"), catalog.build("vanilla", 4, hidden=8, layers=1, dropout=0.5)
    kernels.select(chosen)
    before = torch.get_rng_state()
    summarise(model, 2)
    assert kernels.selected() == chosen
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize(
    ("name", "words"),
    [("stem", "stem"), ("levels.0", "level 1"), ("levels.1.blocks.2.mixer", "level 2, block 3, mixer")],
)
def test_a_layer_is_called_as_people_do(name, words):
    assert LayerSummary(name, "", (), 0, 0, 0).in_words == words
