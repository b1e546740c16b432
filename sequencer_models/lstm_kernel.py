"""The C library of LSTMs (`lstm_kernel.c`), loaded: its two functions, and the lanes that they run over."""

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lane:
    """One direction of one pass: sequence `s` reads at step `t` the token
    `first + (s // inner_count) * outer + (s % inner_count) * inner + t * step`."""

    first: int
    outer: int
    inner_count: int
    inner: int
    step: int
    steps: int
    sequences: int


Lanes = ctypes.Array[ctypes.c_int64]


class LstmKernel:
    """The loaded library. M tokens, P lanes, D hidden size; the C source says what is computed."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        self._forward = library.seqpipe_lstm_forward
        self._forward.argtypes = [pointer] * 6 + [integer] * 3
        self._backward = library.seqpipe_lstm_backward
        self._backward.argtypes = [pointer] * 8 + [integer] * 3
        self.threads = library.seqpipe_lstm_threads
        library.seqpipe_lstm_compiler.restype = ctypes.c_char_p
        self.compiler: str = library.seqpipe_lstm_compiler().decode(errors="replace")
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    def forward(
        self, gates: Tensor, w_hh: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor | None, lanes: Sequence[Lane]
    ) -> None:
        """Fill `hidden` (M x P*D) from `gates` (M x P*4D: projected inputs without bias).

        With `cell` (M x P*D), which a backward pass needs, it is filled too, and `gates` hold the gates afterwards.
        `gates`, `hidden` and `cell` are contiguous and of one type, float32 or bfloat16; `w_hh` (P x 4D x D) and
        `bias` (P x 4D) are contiguous float32.
        """
        status = self._forward(
            gates.data_ptr(),
            w_hh.data_ptr(),
            bias.data_ptr(),
            hidden.data_ptr(),
            None if cell is None else cell.data_ptr(),
            _table(lanes),
            len(lanes),
            w_hh.shape[-1],
            gates.dtype == torch.bfloat16,
        )
        _check(status)

    def backward(
        self, gates: Tensor, w_hh: Tensor, hidden: Tensor, cell: Tensor, grad_hidden: Tensor, lanes: Sequence[Lane]
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `w_hh` (P x 4D x D) and `bias` (P x 4D), float32.

        `gates` as `forward` left them become the gradient of the projected inputs. `grad_hidden` is of their type.
        """
        grad_w_hh = torch.empty_like(w_hh)
        grad_bias = w_hh.new_empty(w_hh.shape[:2])
        status = self._backward(
            gates.data_ptr(),
            w_hh.data_ptr(),
            hidden.data_ptr(),
            cell.data_ptr(),
            grad_hidden.data_ptr(),
            grad_w_hh.data_ptr(),
            grad_bias.data_ptr(),
            _table(lanes),
            len(lanes),
            w_hh.shape[-1],
            gates.dtype == torch.bfloat16,
        )
        _check(status)
        return grad_w_hh, grad_bias


def _table(lanes: Sequence[Lane]) -> Lanes:
    values = [
        value
        for lane in lanes
        for value in (lane.first, lane.outer, lane.inner_count, lane.inner, lane.step, lane.steps, lane.sequences)
    ]
    return (ctypes.c_int64 * len(values))(*values)


def _check(status: int) -> None:
    if status:
        raise MemoryError("not enough memory for the states of an LSTM")
