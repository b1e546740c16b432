"""What a token costs in BiLSTM2D and in self-attention of the same width, forward and backward.

    python benchmarks/attention_cost.py [--rounds N] [--settings NAME ...]

Interleaved in one process, fp32, over as many tokens each time: many small images or few large ones. Attention is
torch's `MultiheadAttention` with heads of 32 channels, through its fused kernel; it has no bias of position either.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, times
from measuring.ours import kernels_of, numerics, set_up
from measuring.records import Record
from measuring.settings import ONE_THREAD, TWO_THREADS, Setting
from measuring.timing import interleaved, say, speedup
from torch import Tensor, nn

from sequencer_models import kernels
from sequencer_models.bilstm2d import BiLSTM2D

CHANNELS = (192, 384)
SIDES = (4, 8, 16, 32)
TOKENS = 4096
HEAD = 32


class Attention(nn.Module):
    """Every token of an image looks at every other one."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(C, C // HEAD, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` in and out."""
        tokens = x.flatten(1, 2)  # B x HW x C
        mixed: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return mixed.reshape(x.shape)


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    set_up(setting)
    kernels.select(kernels_of(numerics("fp32", setting)))
    found = []
    for C in CHANNELS:
        bilstm, attention = BiLSTM2D(C, C // 4), Attention(C)
        for side in SIDES:
            x = torch.randn(max(1, TOKENS // side**2), side, side, C, requires_grad=True)
            grad_out = torch.randn_like(x)
            ways = {"BiLSTM2D": _pass(bilstm, x, grad_out), "attention": _pass(attention, x, grad_out)}
            taken = interleaved(ways, options.rounds)
            found.append(
                {
                    "C": C,
                    "side": side,
                    "images": len(x),
                    "multiply_adds_of_a_token": {"BiLSTM2D": 6 * C**2, "attention": 4 * C**2 + 2 * side**2 * C},
                    **{name: one.to_json() for name, one in taken.items()},
                    **speedup(taken["attention"], taken["BiLSTM2D"]),
                }
            )
            say(f"C={C} {side}x{side}: {found[-1]['speedup']}")
    return found


def _pass(module: nn.Module, x: Tensor, grad_out: Tensor) -> Callable[[], object]:
    wanted = [x, *module.parameters()]
    return lambda: torch.autograd.grad(module(x), wanted, grad_out)


def tables(record: Record) -> list[Table]:
    columns = [
        "C", "tokens of an image", "images", "multiply-adds of a token: BiLSTM2D", "attention",
        "BiLSTM2D, ms", "attention, ms", "BiLSTM2D is faster by",
    ]  # fmt: skip
    return [
        Table(
            f"BiLSTM2D and attention of the same width, forward and backward: {part['label']}",
            columns,
            [_row(row) for row in part["figures"]],
            [machine_in_words(part["machine"])],
        )
        for part in record["settings"].values()
    ]


def _row(row: dict[str, Any]) -> list[str]:
    arithmetic = row["multiply_adds_of_a_token"]
    return [
        str(row["C"]),
        f"{row['side']}x{row['side']}",
        str(row["images"]),
        f"{arithmetic['BiLSTM2D']:,}",
        f"{arithmetic['attention']:,}",
        milliseconds(row["BiLSTM2D"]),
        milliseconds(row["attention"]),
        times(row),
    ]


BENCHMARK = Benchmark("attention_cost", measure, tables, settings=(TWO_THREADS, ONE_THREAD))

if __name__ == "__main__":
    BENCHMARK.main()
