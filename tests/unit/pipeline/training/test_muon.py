import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.training import step_memory
from pipeline.training.muon import MOMENTUM, UPDATE_RMS, Muon, matrices_of, orthogonalised
from sequencer_models import catalog

ARCHITECTURES = {
    "small": {"dims": (8, 16), "depths": (1, 1), "grid": 4},
    "medium": {"dims": (8, 16, 16), "depths": (1, 1, 1), "grid": 4},
    "vanilla": {"hidden": 8, "layers": 2},
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def muon_of(weights: list[nn.Parameter], gates: int = 1, lr: float = 0.1, weight_decay: float = 0.0) -> Muon:
    return Muon([{"params": weights, "gates": gates, "lr": lr, "weight_decay": weight_decay}], torch.float32)


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter, count: int) -> torch.Tensor:
    for seed in range(count):
        weight.grad = drawn(*weight.shape, seed=seed + 10)
        optimizer.step()
    return weight.detach().clone()


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 4, 4), (5, 6, 20), (1, 30, 31)])
def test_singular_values_come_near_1_and_the_vectors_stay(shape):
    before = drawn(*shape)
    after = orthogonalised(before.clone())
    U, _, V = torch.linalg.svd(before, full_matrices=False)
    turned = U.mT @ after @ V.mT  # diagonal where the vectors are the same
    values = torch.diagonal(turned, dim1=1, dim2=2)
    assert (turned - torch.diag_embed(values)).abs().max() < 1e-3
    assert 0.5 < values.min() <= values.max() < 1.3


@pytest.mark.parametrize("rank", [1, 8, 24])
@pytest.mark.parametrize("columns", [30, 36, 40, 200])
def test_it_is_newton_and_schulz_whatever_the_shape_and_the_rank(rank, columns):
    """Against the iteration as it is published, in fp64, from the fourth root of the sum of s^4."""
    x = drawn(3, 24, rank) @ drawn(3, rank, columns, seed=1)
    bound = torch.linalg.svdvals(x.double()).pow(4).sum(1).pow(0.25)
    expected = x.double() / bound[:, None, None]
    for _ in range(3):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.775 * gram + 2.0315 * gram @ gram) @ expected
    found = orthogonalised(x.clone())
    assert (found - expected).norm() < 2e-3 * expected.norm()


def test_in_bf16_long_matrices_are_as_near_to_it_as_others():
    for columns in (24, 200):
        x = drawn(3, 24, columns)
        found, expected = orthogonalised(x.bfloat16()), orthogonalised(x.clone())
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_each_matrix_is_orthogonalised_by_itself_whatever_its_size():
    small, large = drawn(1, 4, 6) * 1e-3, drawn(1, 4, 6, seed=1) * 1e3
    together = orthogonalised(torch.cat([small, large]))
    torch.testing.assert_close(together[:1], orthogonalised(small.clone()))
    torch.testing.assert_close(together[1:], orthogonalised(large.clone()))


def test_a_gradient_of_nothing_changes_nothing():
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("shape", [(6, 6), (5, 12), (12, 5)])
def test_it_is_torchs_muon(shape):
    """Which orthogonalises in bf16 and from a looser bound, so the singular values differ within 0.7 to 1.2."""
    ours, theirs = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape))
    found = steps(muon_of([ours], lr=0.05, weight_decay=0.3), ours, 4)
    oracle = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    expected = steps(oracle, theirs, 4)
    change, its_change = found - drawn(*shape), expected - drawn(*shape)
    assert torch.cosine_similarity(change.flatten(), its_change.flatten(), dim=0) > 0.98
    assert change.norm().item() == pytest.approx(its_change.norm().item(), rel=0.1)


def test_in_bf16_it_differs_in_the_last_digits_only():
    full, half = nn.Parameter(drawn(6, 9)), nn.Parameter(drawn(6, 9))
    in_bf16 = Muon([{"params": [half], "lr": 0.05}], torch.bfloat16)
    found, expected = steps(in_bf16, half, 3), steps(muon_of([full], lr=0.05), full, 3)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < 0.02 * (expected - drawn(6, 9)).norm()
    assert found.dtype == in_bf16.state[half]["momentum"].dtype == torch.float32


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_an_update_is_about_as_large_as_adamws(shape):
    weight = nn.Parameter(torch.zeros(shape))
    change = steps(muon_of([weight], lr=1.0), weight, 1)
    assert change.square().mean().sqrt().item() == pytest.approx(UPDATE_RMS, rel=0.2)


def test_gates_are_matrices_of_their_own():
    whole, parts = nn.Parameter(drawn(12, 5)), [nn.Parameter(part) for part in drawn(12, 5).chunk(4)]
    gradient = drawn(12, 5, seed=1)
    gradient[:3] *= 1000  # as one matrix, nothing else would count
    whole.grad = gradient.clone()
    for part, own in zip(parts, gradient.chunk(4), strict=True):
        part.grad = own.clone()
    muon_of([whole], gates=4).step()
    muon_of(parts).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]))


def test_a_convolution_is_one_matrix_of_channels_out_by_the_rest():
    kernel, matrix = nn.Parameter(drawn(4, 3, 2, 2)), nn.Parameter(drawn(4, 3, 2, 2).flatten(1))
    kernel.grad = drawn(4, 3, 2, 2, seed=1).to(memory_format=torch.channels_last)
    matrix.grad = drawn(4, 3, 2, 2, seed=1).flatten(1)
    for weight in (kernel, matrix):
        muon_of([weight]).step()
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach())


def test_weights_of_one_shape_and_its_transpose_change_as_each_would_alone():
    shapes = [(4, 6), (6, 4), (4, 6), (8, 8)]
    together = [nn.Parameter(drawn(*shape, seed=number)) for number, shape in enumerate(shapes)]
    alone = [nn.Parameter(weight.detach().clone()) for weight in together]
    for number, pair in enumerate(zip(together, alone, strict=True)):
        for weight in pair:
            weight.grad = drawn(*weight.shape, seed=20 + number)
    muon_of(together).step()
    for weight in alone:
        muon_of([weight]).step()
    for weight, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(weight, expected)


def test_a_weight_without_a_gradient_is_left_alone():
    weight = nn.Parameter(drawn(3, 4))
    optimizer = muon_of([weight], weight_decay=0.5)
    optimizer.step()
    assert torch.equal(weight, drawn(3, 4))
    assert not optimizer.state[weight]


def test_its_momentum_is_nesterovs():
    weight, gradients = nn.Parameter(drawn(3, 4)), [drawn(3, 4, seed=seed) for seed in (1, 2)]
    optimizer, momentum = muon_of([weight]), torch.zeros(3, 4)
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        update = orthogonalised((MOMENTUM * momentum + (1 - MOMENTUM) * gradient)[None])[0]
        torch.testing.assert_close(weight.detach(), before - 0.1 * UPDATE_RMS * math.sqrt(4) * update)
    torch.testing.assert_close(optimizer.state[weight]["momentum"], momentum)


@pytest.mark.parametrize("name", ["small", "medium", "vanilla"])
def test_it_is_for_the_matrices_of_hidden_layers(name):
    model = catalog.build(name, 3, **ARCHITECTURES[name])
    found = matrices_of(model)
    weights = dict(model.named_parameters())
    left = {each for each in weights if each not in found and weights[each].ndim >= 2}
    assert left == {"head.weight"} | ({"stem.proj.weight"} if name != "vanilla" else set())
    assert {each for each, gates in found.items() if gates == 4} == {each for each in weights if ".weight_" in each}
    assert set(found.values()) == {1, 4}


def test_of_a_stem_only_the_first_layer_is_left_out():
    model = catalog.build("small", 3, **ARCHITECTURES["small"], stem="conv")
    in_stem = [name for name in matrices_of(model) if name.startswith("stem.")]
    assert in_stem == ["stem.convs.1.weight", "stem.convs.2.weight"]


def test_a_whitened_layer_is_the_first_of_its_stem_and_a_pooling_vector_is_no_matrix():
    options = {"stem": "deep", "whitened": True, "pooling": "attention"}
    model = catalog.build("small", 3, **ARCHITECTURES["small"], **options)
    found = matrices_of(model)
    assert all(dict(model.named_parameters())[name].requires_grad for name in found)
    assert not any("pool" in name for name in found)


def test_a_matrix_of_one_row_or_column_is_a_vector():
    model = nn.ModuleDict({"pooling": nn.Linear(8, 1), "spread": nn.Linear(1, 8), "fc": nn.Linear(2, 8)})
    assert set(matrices_of(model)) == {"fc.weight"}
    assert "rnn.weight_hh_l0" not in matrices_of(nn.ModuleDict({"rnn": nn.LSTM(3, 1)}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_arithmetic_is_that_of_its_products(dtype):
    weights = [nn.Parameter(drawn(*shape)) for shape in ((8, 6), (6, 11), (6, 12), (30, 7))]
    lstm = nn.Parameter(drawn(12, 5))
    optimizer = Muon([{"params": weights}, {"params": [lstm], "gates": 4}], dtype)
    for weight in (*weights, lstm):
        weight.grad = drawn(*weight.shape)
    with FlopCounterMode(display=False) as counted:
        optimizer.step()
    assert optimizer.flops() == counted.get_total_flops()
    in_full = 3 * sum(2 * (2 * m * m * n + m**3) for m, n in ((6, 8), (6, 11), (6, 12), (7, 30), *[(3, 5)] * 4))
    assert (optimizer.flops() < in_full) == (dtype == torch.float32), "long matrices take less in fp32"


@pytest.mark.parametrize(("columns", "is_less"), [(9, False), (10, True)])
def test_matrices_take_less_from_half_as_long_again_as_high_on(columns, is_less):
    found = muon_of([nn.Parameter(drawn(6, columns))]).flops()
    assert (found < 3 * 2 * (2 * 6 * 6 * columns + 6**3)) == is_less


@pytest.mark.parametrize("columns", [60, 120])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_its_step_holds_is_no_more_than_it_says(dtype, columns):
    weights = [nn.Parameter(drawn(40, columns, seed=seed)) for seed in range(3)]
    lstm = nn.Parameter(drawn(80, 30))
    optimizer = Muon([{"params": weights}, {"params": [lstm], "gates": 4}], dtype)
    for weight in (*weights, lstm):
        weight.grad = drawn(*weight.shape)
    optimizer.step()  # its state is there
    live = step_memory._LiveTensors(nn.ParameterList([*weights, lstm]))
    with live:
        optimizer.step()
    lasting = 2 * sum(weight.nbytes for weight in (*weights, lstm))  # gradients and momentum
    one = weights[0].nbytes + 3 * 4 * 2  # in the making, and two numbers a matrix
    assert optimizer.scratch_bytes() * 0.9 <= max(live.bytes_after) - lasting <= optimizer.scratch_bytes() + one
