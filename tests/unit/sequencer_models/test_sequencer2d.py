import dataclasses

import pytest
import torch
from timm.models.sequencer import Sequencer2d, Sequencer2dBlock
from torch import Tensor

from sequencer_models import catalog, kernels
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.kernels import Kernels
from sequencer_models.layers import DropPath, PatchMerging, PointwiseLinear
from sequencer_models.sequencer2d import Sequencer2D, Sequencer2DBlock
from sequencer_models.sequencer2d_spec import Sequencer2DArchitecture

ARCHITECTURE = Sequencer2DArchitecture(classes=4, dims=(16, 24), depths=(2, 1), drop_path=0.0)
EVERY_OPTION = {
    "stem": "deep",
    "stem_width": 6,
    "whitened": True,
    "pooling": "attention",
    "recurrent_init": "orthogonal",
    "forget_bias": 1.0,
}


def in_timms_words(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under timm's names; a pointwise linear layer is timm's 1x1 merging in the next stage."""
    renamed = {}
    for name, weight in state.items():
        if ".pointwise." in name:
            level = int(name.split(".")[1])
            name = f"stages.{level + 1}.downsample.down.{name.rsplit('.', 1)[1]}"
            weight = weight[..., None, None] if weight.dim() == 2 else weight
        for ours, timms in (
            ("levels.", "stages."),
            ("merging.", "downsample."),
            ("mixer.", "rnn_tokens."),
            ("mlp.", "mlp_channels."),
            ("head.", "head.fc."),
        ):
            name = name.replace(ours, timms)
        renamed[name] = weight
    return renamed


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_block_gives_what_timms_block_gives():
    block, peer = Sequencer2DBlock(24, 3.0, 0.0, 0.0), Sequencer2dBlock(24, 6)
    peer.load_state_dict(in_timms_words(block.state_dict()))
    ours, theirs = (torch.randn(3, 5, 4, 24).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    out, out_peer = block(ours), peer(theirs)
    torch.testing.assert_close(out, out_peer)
    out.square().sum().backward()
    out_peer.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(in_timms_words(gradients(block)), gradients(peer), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "layers", "patch_sizes"), [("small", (4, 3, 0), (4, 2, 1)), ("medium", (4, 3, 3, 0), (4, 2, 1, 1))]
)
def test_whole_model_gives_what_the_same_model_out_of_timms_parts_gives(name, layers, patch_sizes):
    model = catalog.build(name, 10, drop_path=0.0)
    levels = len(layers)
    peer = Sequencer2d(
        10,
        layers=layers,
        patch_sizes=patch_sizes,
        embed_dims=(192, *[384] * (levels - 1)),
        hidden_sizes=(48, *[96] * (levels - 1)),
        mlp_ratios=(3.0,) * levels,
        stem_norm=True,
    )
    peer.load_state_dict(in_timms_words(model.state_dict()))
    images = torch.randn(3, 3, 32, 32)
    logits, logits_peer = model(images), peer(images)
    torch.testing.assert_close(logits, logits_peer, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    logits_peer.square().sum().backward()
    theirs = gradients(peer)
    for parameter, gradient in in_timms_words(gradients(model)).items():
        assert (gradient - theirs[parameter]).abs().max() <= 1e-4 * theirs[parameter].abs().max(), parameter


def test_levels_of_small_and_medium_are_those_of_the_table():
    small, medium = catalog.build("small", 4), catalog.build("medium", 4)
    for model, depths in ((small, [4, 3]), (medium, [4, 3, 3])):
        assert [len(level.blocks) for level in model.levels] == depths
        assert [isinstance(level.merging, PatchMerging) for level in model.levels] == [False, True, False][
            : len(depths)
        ]
        assert isinstance(model.levels[-1].pointwise, PointwiseLinear)
        assert not isinstance(model.levels[0].pointwise, PointwiseLinear)
    assert isinstance(medium.levels[1].pointwise, PointwiseLinear)


def test_drop_path_rises_in_a_straight_line_over_all_levels():
    model = Sequencer2D(dataclasses.replace(ARCHITECTURE, depths=(3, 2), drop_path=0.4))
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_and_dropout_change_training_but_not_eval():
    model = Sequencer2D(dataclasses.replace(ARCHITECTURE, drop_path=0.5, dropout=0.5, mlp_dropout=0.5))
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_drop_path_takes_both_branches_of_a_block():
    block = Sequencer2DBlock(16, 3.0, 0.0, drop_path=0.5)
    x = torch.randn(256, 2, 2, 16)
    unchanged = (block(x) == x).flatten(1).all(1).float().mean().item()
    assert unchanged == pytest.approx(0.25, abs=0.1)  # both branches dropped


@pytest.mark.parametrize(
    ("grid", "stem"),
    [*((grid, stem) for grid in (4, 8, 16) for stem in ("patch", "conv", "deep")), (32, "patch")],
)
def test_grids_and_stems_give_logits(grid, stem):
    model = Sequencer2D(dataclasses.replace(ARCHITECTURE, grid=grid, stem=stem))
    assert model.stem(torch.randn(2, 3, 32, 32)).shape == (2, grid, grid, 16)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({"stem": "deep"}, (48, 96, 192)),
        ({"stem": "deep", "stem_width": 64}, (64, 128, 192)),
        ({"stem": "deep", "grid": 4}, (48, 96, 192, 192)),
        ({"stem": "deep", "grid": 16}, (48, 192)),
        ({"stem": "deep", "stem_width": 500}, (192, 192, 192)),
        ({"stem": "deep", "stem_width": 1}, (1, 2, 192)),
        ({"stem": "conv"}, (96, 192)),
        ({"stem": "conv", "grid": 4}, (48, 96, 192)),
        ({"stem": "conv", "grid": 16}, (192,)),
    ],
)
def test_a_stem_doubles_its_width_up_to_that_of_level_1(fields, widths):
    model = Sequencer2D(dataclasses.replace(ARCHITECTURE, dims=(192, 24), **fields))
    assert model.architecture.stem_widths == widths
    assert tuple(conv.out_channels for conv in model.stem.convs) == widths
    strides = [conv.stride for conv in model.stem.convs]
    assert strides == [(1, 1) if fields["stem"] == "deep" else (2, 2)] + [(2, 2)] * (len(widths) - 1)


@pytest.mark.parametrize(("mixing", "there"), [("columns", "rnn_v"), ("rows", "rnn_h")])
def test_one_axis_has_an_lstm_of_twice_the_width_in_every_block(mixing, there):
    model = Sequencer2D(dataclasses.replace(ARCHITECTURE, mixing=mixing))
    for channels, level in zip((16, 24), model.levels, strict=True):
        for block in level.blocks:
            lstms = {
                name: module for name, module in block.mixer.named_modules() if isinstance(module, torch.nn.LSTM)
            }
            assert list(lstms) == [there]
            assert lstms[there].hidden_size == channels // 2
            assert block.mixer.fc.weight.shape == (channels, channels)


@pytest.mark.usefixtures("native_with_each_linear")
def test_every_option_at_once_gives_by_the_native_kernel_what_it_gives_without():
    fields = {**EVERY_OPTION, "mixing": "rows", "drop_path": 0.0}
    model, images, results = Sequencer2D(dataclasses.replace(ARCHITECTURE, **fields)), torch.randn(7, 3, 32, 32), []
    with torch.no_grad():
        model.pooling.score.weight.normal_()
    for chosen in (kernels.selected(), Kernels()):
        kernels.select(chosen)
        model.zero_grad()
        logits = model(images)
        logits.logsumexp(1).sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("kernel", ["eager", "native"])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("fields", [{}, {**EVERY_OPTION, "mixing": "columns"}], ids=["described", "every option"])
def test_activation_checkpointing_changes_no_bit(request, kernel, bf16, fields):
    if kernel == "native":
        request.getfixturevalue("native_kernel")
    kernels.select(Kernels(kernel, "matmul" if kernel == "eager" else "convolution"))
    model = Sequencer2D(Sequencer2DArchitecture(4, dims=(16, 32), depths=(2, 2), **{"drop_path": 0.5, **fields}))
    images, results = torch.randn(6, 3, 32, 32), []
    for enabled in (False, True):
        checkpoint_activations(model, enabled)
        model.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images)
        logits.float().square().sum().backward()
        results.append(
            [logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad), torch.get_rng_state()]
        )
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_activation_checkpointing_keeps_only_the_input_of_a_block():
    model, saved = Sequencer2D(Sequencer2DArchitecture(4, dims=(16, 32), depths=(2, 2), drop_path=0.0)), []
    for enabled in (False, True):
        checkpoint_activations(model, enabled)
        saved.append(0)

        def count(tensor):
            saved[-1] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(torch.randn(6, 3, 32, 32))
    assert saved[1] < 0.3 * saved[0]


def test_one_level_has_no_merging():
    model = Sequencer2D(Sequencer2DArchitecture(classes=4, dims=(16,), depths=(1,), pointwise=(), drop_path=0.0))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert not any(isinstance(module, PatchMerging) for module in model.modules())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": 5}, "choose from"),
        ({"grid": 1}, "even grid"),
        ({"grid": 32, "stem": "conv"}, "stem patch"),
        ({"image_size": 24, "grid": 4, "stem": "conv"}, "stem patch"),
        ({"stem": "convs"}, "patch, conv"),
        ({"grid": 32, "stem": "deep"}, "stem deep halves 32 pixels"),
        ({"stem": "deep", "stem_width": 0}, "stem_width is 0: it must be at least 1"),
        (
            {"stem": "conv", "stem_width": 8},
            "stem_width is 8, but stem conv has no such convolution: choose stem deep",
        ),
        ({"whitened": True}, "whitened is True, but stem patch has no such convolution: choose stem deep"),
        ({"mixing": "rows and columns"}, "both, rows, columns"),
        ({"pooling": "max"}, "mean, attention"),
        ({"recurrent_init": "identity"}, "uniform, orthogonal"),
        ({"forget_bias": -1.0}, "forget_bias is -1.0: it must be at least 0"),
        ({"dims": (16, 22)}, "a multiple of 4"),
        ({"dims": (16,)}, "one of each per level"),
        ({"dims": (), "depths": ()}, "one of each per level"),
        ({"dims": (16, 24, 32), "depths": (1, 1, 1)}, "the same"),
        ({"depths": (2, 0)}, "at least 1"),
        ({"pointwise": (3,)}, "from 1 to 2"),
        ({"classes": 0}, "at least 1"),
        ({"in_channels": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"mlp_dropout": -0.1}, "mlp_dropout is -0.1"),
        ({"drop_path": float("nan")}, "drop_path is nan"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0: it must be above 0"),
        ({"mlp_ratio": 0.05}, "without a channel"),
        ({"init": "xavier"}, "he, paper"),
    ],
)
def test_an_architecture_that_does_not_fit_says_what_would(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ARCHITECTURE, **fields)
