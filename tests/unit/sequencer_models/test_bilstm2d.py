from collections.abc import Callable

import pytest
import torch
from timm.models.sequencer import LSTM2d
from torch import Tensor, nn

from sequencer_models.bilstm2d import BiLSTM2D

C, D = 24, 6
SQUARE, WIDE, TALL = (3, 5, 5, C), (2, 3, 6, C), (2, 4, 1, C)


def one_sequence_at_a_time(mixer: BiLSTM2D, x: Tensor) -> Tensor:
    """The definition, token by token: each column and row through its own call, the directions cell by cell."""
    B, H, W, _ = x.shape
    features = [[[None] * W for _ in range(H)] for _ in range(B)]
    for b in range(B):
        vertical = [both_ways(mixer.rnn_v, [x[b, row, column] for row in range(H)]) for column in range(W)]
        horizontal = [both_ways(mixer.rnn_h, [x[b, row, column] for column in range(W)]) for row in range(H)]
        for row in range(H):
            for column in range(W):
                features[b][row][column] = torch.cat([vertical[column][row], horizontal[row][column]])
    stacked = torch.stack([torch.stack([torch.stack(row) for row in image]) for image in features])
    return stacked @ mixer.fc.weight.T + mixer.fc.bias


def both_ways(rnn: nn.LSTM, sequence: list[Tensor]) -> list[Tensor]:
    forwards = one_way(sequence, *rnn.all_weights[0])
    backwards = one_way(sequence[::-1], *rnn.all_weights[1])[::-1]
    return [torch.cat(pair) for pair in zip(forwards, backwards, strict=True)]


def one_way(sequence: list[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> list[Tensor]:
    hidden = cell = torch.zeros(w_hh.shape[1], dtype=w_hh.dtype)
    outputs = []
    for token in sequence:
        i, f, g, o = (w_ih @ token + b_ih + w_hh @ hidden + b_hh).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return outputs


def output_and_gradients(
    module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    out = forward(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).cos().reshape(out.shape)
    (out.double() * weights).sum().backward()
    assert x.grad is not None
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    return out.detach(), {"input": x.grad, **gradients}


def assert_same(
    ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]], rtol: float
) -> None:
    """Equal within `rtol` of the largest value of each tensor."""
    assert ours[1].keys() == theirs[1].keys()
    pairs = {"output": (ours[0], theirs[0])} | {name: (ours[1][name], theirs[1][name]) for name in ours[1]}
    for name, (a, b) in pairs.items():
        assert a.dtype == b.dtype, name
        assert (a - b).abs().max() <= rtol * b.abs().max(), name


@pytest.mark.parametrize("shape", [SQUARE, WIDE, TALL])
def test_reference_is_an_lstm_over_each_column_and_row_alone(shape):
    mixer, x = BiLSTM2D(C, D).double(), torch.randn(shape, dtype=torch.float64)
    ours = output_and_gradients(mixer, mixer.forward_reference, x)
    theirs = output_and_gradients(mixer, lambda x: one_sequence_at_a_time(mixer, x), x)
    assert_same(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_batched_is_an_lstm_over_each_column_and_row_alone(side):
    mixer, x = BiLSTM2D(C, D).double(), torch.randn(3, side, side, C, dtype=torch.float64)
    ours = output_and_gradients(mixer, mixer.forward_batched, x)
    theirs = output_and_gradients(mixer, lambda x: one_sequence_at_a_time(mixer, x), x)
    assert_same(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_same_weights_give_what_timm_gives(shape):
    mixer, peer, x = BiLSTM2D(C, D), LSTM2d(C, D), torch.randn(shape)
    peer.load_state_dict(mixer.state_dict())
    assert_same(output_and_gradients(mixer, mixer, x), output_and_gradients(peer, peer, x), rtol=1e-5)


def test_weights_come_back_from_timm():
    mixer, peer, x = BiLSTM2D(C, D), LSTM2d(C, D), torch.randn(SQUARE)
    mixer.load_state_dict(peer.state_dict())
    torch.testing.assert_close(mixer(x), peer(x))


@pytest.mark.parametrize(("side", "channels"), [(8, 192), (4, 384)])
def test_batched_equals_reference_in_float32(side, channels):
    mixer, x = BiLSTM2D(channels, channels // 4), torch.randn(4, side, side, channels)
    batched = output_and_gradients(mixer, mixer.forward_batched, x)
    assert_same(batched, output_and_gradients(mixer, mixer.forward_reference, x), rtol=1e-5)


@pytest.mark.parametrize(("side", "channels"), [(8, 192), (4, 384)])
def test_batched_under_bfloat16_is_as_near_to_float32_as_the_reference(side, channels):
    mixer, x = BiLSTM2D(channels, channels // 4), torch.randn(4, side, side, channels)

    def in_bf16(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return forward(x)

        return run

    exact_out, exact_gradients = output_and_gradients(mixer, mixer.forward_reference, x)
    batched = output_and_gradients(mixer, in_bf16(mixer.forward_batched), x)
    reference = output_and_gradients(mixer, in_bf16(mixer.forward_reference), x)
    assert batched[0].dtype == reference[0].dtype == torch.bfloat16
    for name, exact in {"output": exact_out, **exact_gradients}.items():
        errors = []
        for out, gradients in (batched, reference):
            tensor = out if name == "output" else gradients[name]
            errors.append(((tensor.float() - exact).norm() / exact.norm()).item())
        assert errors[0] <= max(2 * errors[1], 0.01), (name, errors)
    assert {g.dtype for g in batched[1].values()} == {torch.float32}


def test_batched_is_the_same_bit_for_bit_from_run_to_run():
    mixer, x = BiLSTM2D(192, 48), torch.randn(16, 8, 8, 192)
    runs = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            runs.append(output_and_gradients(mixer, mixer.forward_batched, x))
    (out, gradients), (out_again, gradients_again) = runs
    assert torch.equal(out, out_again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)


def test_batched_can_go_backwards_twice_through_one_graph():
    mixer, x = BiLSTM2D(C, D), torch.randn(SQUARE, requires_grad=True)
    out = mixer.forward_batched(x).sum()
    first, second = (torch.autograd.grad(out, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("shape", "bf16", "grad", "expected"),
    [
        (SQUARE, True, True, "batched"),
        (SQUARE, False, True, "reference"),
        (SQUARE, True, False, "reference"),
        (WIDE, True, True, "reference"),
    ],
)
def test_batched_runs_only_where_it_is_faster_and_the_grid_square(monkeypatch, shape, bf16, grad, expected):
    mixer, taken = BiLSTM2D(C, D), []
    monkeypatch.setattr(mixer, "forward_batched", lambda x: taken.append("batched"))
    monkeypatch.setattr(mixer, "forward_reference", lambda x: taken.append("reference"))
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        mixer(torch.randn(shape))
    assert taken == [expected]
