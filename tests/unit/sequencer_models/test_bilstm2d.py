from collections.abc import Callable

import pytest
import torch
from timm.models.sequencer import LSTM2d
from torch import Tensor, nn

from sequencer_models import kernel_build, kernels, lstm
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.kernels import Kernels

C, D = 24, 6
SQUARE, WIDE, TALL, ONE = (3, 5, 5, C), (2, 3, 6, C), (2, 4, 1, C), (1, 1, 1, C)
AXES = ["both", "rows", "columns"]


def one_sequence_at_a_time(mixer: BiLSTM2D, x: Tensor) -> Tensor:
    """The definition, token by token: each column and row through its own call, the directions cell by cell."""
    B, H, W, _ = x.shape
    features = [[[[] for _ in range(W)] for _ in range(H)] for _ in range(B)]
    for b in range(B):
        for column in range(W) if mixer.rnn_v is not None else ():
            for row, out in enumerate(both_ways(mixer.rnn_v, [x[b, row, column] for row in range(H)])):
                features[b][row][column].append(out)
        for row in range(H) if mixer.rnn_h is not None else ():
            for column, out in enumerate(both_ways(mixer.rnn_h, [x[b, row, column] for column in range(W)])):
                features[b][row][column].append(out)
    stacked = torch.stack(
        [torch.stack([torch.stack([torch.cat(t) for t in row]) for row in image]) for image in features]
    )
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


def as_float(result: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    return result[0].float(), {name: gradient.float() for name, gradient in result[1].items()}


def in_bf16(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(x)

    return run


@pytest.mark.parametrize("mixing", AXES)
@pytest.mark.parametrize("shape", [SQUARE, WIDE, TALL, ONE])
def test_reference_is_an_lstm_over_each_column_and_row_alone(shape, mixing):
    mixer, x = BiLSTM2D(C, D, mixing).double(), torch.randn(shape, dtype=torch.float64)
    ours = output_and_gradients(mixer, mixer.forward_reference, x)
    theirs = output_and_gradients(mixer, lambda x: one_sequence_at_a_time(mixer, x), x)
    assert_same(ours, theirs, rtol=1e-12)


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize("mixing", AXES)
@pytest.mark.parametrize("shape", [SQUARE, WIDE, TALL, ONE])
def test_native_is_an_lstm_over_each_column_and_row_alone(shape, mixing):
    mixer, x = BiLSTM2D(C, D, mixing), torch.randn(shape)
    ours = output_and_gradients(mixer, mixer.forward_native, x)
    exact = BiLSTM2D(C, D, mixing).double()
    exact.load_state_dict(mixer.state_dict())
    theirs = output_and_gradients(exact, lambda x: one_sequence_at_a_time(exact, x), x.double())
    assert_same(ours, as_float(theirs), rtol=2e-6)


@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_same_weights_give_what_timm_gives(shape):
    mixer, peer, x = BiLSTM2D(C, D), LSTM2d(C, D), torch.randn(shape)
    peer.load_state_dict(mixer.state_dict())
    assert_same(output_and_gradients(mixer, mixer, x), output_and_gradients(peer, peer, x), rtol=1e-5)


def test_weights_come_back_from_timm():
    mixer, peer, x = BiLSTM2D(C, D), LSTM2d(C, D), torch.randn(SQUARE)
    mixer.load_state_dict(peer.state_dict())
    torch.testing.assert_close(mixer(x), peer(x))


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize(("side", "channels"), [(8, 192), (4, 384), (16, 64), (3, 68), (4, 448)])
def test_native_gives_what_timm_gives(side, channels):
    mixer, peer = BiLSTM2D(channels, channels // 4), LSTM2d(channels, channels // 4)
    peer.load_state_dict(mixer.state_dict())
    x = torch.randn(7, side, side, channels)  # 21 to 112 sequences: tasks that are full, and ones that are not
    assert_same(output_and_gradients(mixer, mixer, x), output_and_gradients(peer, peer, x), rtol=1e-5)


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize(("side", "channels", "mixing"), [(8, 192, "both"), (4, 384, "both"), (8, 192, "columns")])
def test_native_under_bfloat16_is_as_near_to_float32_as_the_reference(side, channels, mixing):
    hidden = channels // 4 if mixing == "both" else channels // 2
    mixer, x = BiLSTM2D(channels, hidden, mixing), torch.randn(4, side, side, channels)
    exact_out, exact_gradients = output_and_gradients(mixer, mixer.forward_reference, x)
    native = output_and_gradients(mixer, in_bf16(mixer.forward_native), x)
    reference = output_and_gradients(mixer, in_bf16(mixer.forward_reference), x)
    assert native[0].dtype == reference[0].dtype == torch.bfloat16
    for name, exact in {"output": exact_out, **exact_gradients}.items():
        errors = []
        for out, gradients in (native, reference):
            tensor = out if name == "output" else gradients[name]
            errors.append(((tensor.float() - exact).norm() / exact.norm()).item())
        assert errors[0] <= max(1.5 * errors[1], 0.01), (name, errors)
    assert {g.dtype for g in native[1].values()} == {torch.float32}


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize("bf16", [False, True])
def test_native_is_the_same_bit_for_bit_from_run_to_run_and_for_any_number_of_threads(bf16):
    torch.manual_seed(0)
    w_ih, w_hh, bias = torch.randn(4 * 96, 24), torch.randn(4, 96, 24), torch.randn(4, 96)
    x, grad = torch.randn(16 * 64, 24), torch.randn(16 * 64, 96)
    dtype = torch.bfloat16 if bf16 else torch.float32
    lanes = [*lstm.column_lanes(16, 8, 8), *lstm.row_lanes(16, 8, 8)]
    projected, kernel = (x @ w_ih.t()).to(dtype), kernel_build.load()
    results, threads = [], torch.get_num_threads()
    for count in (1, 2, 2, 3):
        torch.set_num_threads(count)
        gates = projected.clone()
        hidden, cell = (torch.empty(len(x), 96, dtype=dtype) for _ in range(2))
        kernel.forward(gates, w_hh, bias, hidden, cell, lanes)
        grads = kernel.backward(gates, w_hh, hidden, cell, grad.to(dtype), lanes)
        results.append((hidden, cell, gates, *grads))
    torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize(("mixing", "lstm_name"), [("columns", "rnn_v"), ("rows", "rnn_h")])
def test_one_axis_is_its_half_of_both(mixing, lstm_name):
    both, one, x = BiLSTM2D(C, D), BiLSTM2D(C, D, mixing), torch.randn(SQUARE)
    features = slice(0, 2 * D) if mixing == "columns" else slice(2 * D, 4 * D)
    with torch.no_grad():
        both.fc.weight[:, [column for column in range(4 * D) if column not in range(4 * D)[features]]] = 0
        one.fc.weight.copy_(both.fc.weight[:, features])
        one.fc.bias.copy_(both.fc.bias)
    getattr(one, lstm_name).load_state_dict(getattr(both, lstm_name).state_dict())
    assert {name.partition(".")[0] for name in one.state_dict()} == {lstm_name, "fc"}
    torch.testing.assert_close(one(x), both(x), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("native")
def test_native_without_gradients_gives_the_same(native):
    mixer, x = BiLSTM2D(C, D), torch.randn(SQUARE)
    with torch.no_grad():
        assert torch.equal(mixer(x), mixer(x.clone().requires_grad_()))
    assert torch.equal(mixer(x).detach(), mixer(x.clone().requires_grad_()).detach())


@pytest.mark.usefixtures("native")
def test_native_refuses_to_go_backwards_twice_through_one_graph():
    mixer, x = BiLSTM2D(C, D), torch.randn(SQUARE, requires_grad=True)
    out = mixer.forward_native(x).sum()
    torch.autograd.grad(out, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backwards once"):
        torch.autograd.grad(out, x)


@pytest.mark.parametrize("bf16", [False, True])
def test_without_the_kernel_a_mixer_keeps_its_input_alone_and_changes_no_bit(bf16):
    mixer, x, results, kept = BiLSTM2D(C, D), torch.randn(SQUARE), [], []

    def count(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    for enabled in (False, True):
        mixer.checkpoint_activations = enabled
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            results.append(output_and_gradients(mixer, in_bf16(mixer) if bf16 else mixer, x))
    assert_same(*results, rtol=0)
    assert kept[1] < 0.2 * kept[0]


@pytest.mark.parametrize(
    ("selected", "dtype", "expected"),
    [
        ("native", torch.float32, "native"),
        ("native", torch.float64, "reference"),
        ("eager", torch.float32, "reference"),
    ],
)
@pytest.mark.usefixtures("native_kernel")
def test_native_runs_where_it_is_selected_and_has_the_type(monkeypatch, selected, dtype, expected):
    kernels.select(Kernels(lstm=selected))
    mixer, taken = BiLSTM2D(C, D).to(dtype), []
    monkeypatch.setattr(mixer, "forward_native", lambda x: taken.append("native"))
    monkeypatch.setattr(mixer, "forward_reference", lambda x: taken.append("reference"))
    mixer(torch.randn(SQUARE, dtype=dtype))
    assert taken == [expected]
