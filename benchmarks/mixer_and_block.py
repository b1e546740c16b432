"""BiLSTM2D and the whole block, forward and backward, against timm's with the same weights.

    python benchmarks/mixer_and_block.py [--rounds N] [--settings 2-threads 1-thread avx2]

Largest gradient difference: over the input and every parameter, relative to the largest value of that gradient. It is
given against timm's in the same precision, and both sides' own against timm's in float64.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from measuring.benchmark import Benchmark
from measuring.gradients import gradients, largest_difference, reference_gradients
from measuring.markdown import Table, machine_in_words, milliseconds
from measuring.ours import Precision, kernels_of, numerics, precisions, set_up
from measuring.peers import timm_block, timm_mixer, timm_name
from measuring.records import Record
from measuring.settings import EVERY, Setting
from measuring.timing import interleaved, say, speedup
from torch import nn

from sequencer_models import kernels
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.kernels import Kernels
from sequencer_models.sequencer2d import Sequencer2DBlock

CHANNELS = (64, 96, 192, 384)
BATCHES = {4: 128, 8: 128, 16: 32}
"""Images by tokens a side; 16 a side, with four times the tokens, would hold over 3 GB at 128."""
MODULES = ("BiLSTM2D", "block")


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    set_up(setting)
    found = []
    for side, batch in BATCHES.items():
        for C in CHANNELS:
            for module in MODULES:
                ours, theirs = pair(module, C)
                x = torch.randn(batch, side, side, C, requires_grad=True)
                grad_out = torch.randn(batch, side, side, C)
                kernels.select(Kernels())
                exact = reference_gradients(theirs, x, grad_out)
                for precision in precisions(setting):
                    figures = compare(ours, theirs, x, grad_out, exact, precision, setting, options.rounds)
                    found.append({"module": module, "side": side, "C": C, "batch": batch, **figures})
                say(f"{module} {side}x{side} C={C}: {', '.join(str(row['speedup']) for row in found[-2:])}")
    return found


def pair(module: str, C: int) -> tuple[nn.Module, nn.Module]:
    """Ours and timm's."""
    if module == "BiLSTM2D":
        mixer = BiLSTM2D(C, C // 4)
        return mixer, timm_mixer(mixer)
    block = Sequencer2DBlock(C, mlp_ratio=3.0, mlp_dropout=0.0, drop_path=0.0)
    return block, timm_block(block)


def compare(
    ours: nn.Module,
    theirs: nn.Module,
    x: torch.Tensor,
    grad_out: torch.Tensor,
    exact: dict[str, torch.Tensor],
    precision: Precision,
    setting: Setting,
    rounds: int,
) -> dict[str, Any]:
    """Both sides' times and gradients."""
    chosen = kernels_of(numerics(precision, setting))

    def run(module: nn.Module, ways: Kernels) -> dict[str, torch.Tensor]:
        kernels.select(ways)
        return gradients(module, x, grad_out, precision)

    mine = {timm_name(name): value for name, value in run(ours, chosen).items()}
    peers = run(theirs, Kernels())
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: run(ours, chosen),
        "timm": lambda: run(theirs, Kernels()),
    }
    times = interleaved(sides, rounds)
    return {
        "precision": precision,
        **{name: taken.to_json() for name, taken in times.items()},
        **speedup(times["timm"], times["ours"]),
        "gradient_difference": largest_difference(mine, peers),
        "ours_from_float64": largest_difference(mine, exact),
        "timm_from_float64": largest_difference(peers, exact),
    }


def tables(record: Record) -> list[Table]:
    return [
        _table(part, module)
        for part in record["settings"].values()
        for module in MODULES
    ]  # fmt: skip


def _table(part: dict[str, Any], module: str) -> Table:
    rows = [row for row in part["figures"] if row["module"] == module]
    kinds = list(dict.fromkeys(row["precision"] for row in rows))
    by_shape: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in rows:
        by_shape.setdefault((row["side"], row["C"], row["batch"]), {})[row["precision"]] = row
    columns = ["tokens", "C", "batch"]
    for kind in kinds:
        columns += [f"{kind}: ours ms", "timm ms", "ratio", "gradients: from timm's", "ours / timm's from float64"]
    lines = [
        [f"{side}x{side}", str(C), str(batch), *(cell for kind in kinds for cell in _cells(found[kind]))]
        for (side, C, batch), found in by_shape.items()
    ]
    means = [
        math.exp(sum(math.log(one[kind]["speedup"]) for one in by_shape.values()) / len(lines)) for kind in kinds
    ]
    lines.append(["geometric mean", "", "", *(cell for mean in means for cell in ("", "", f"{mean:.2f}x", "", ""))])
    title = f"{module}, forward and backward, against timm's: {part['label']}"
    return Table(title, columns, lines, [machine_in_words(part["machine"])])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        milliseconds(row["ours"]),
        milliseconds(row["timm"]),
        f"{row['speedup']:.2f}x",
        f"{row['gradient_difference']:.0e}",
        f"{row['ours_from_float64']:.0e} / {row['timm_from_float64']:.0e}",
    ]


BENCHMARK = Benchmark("mixer_and_block", measure, tables, settings=EVERY)

if __name__ == "__main__":
    BENCHMARK.main()
