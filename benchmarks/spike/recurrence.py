"""The candidates for BiLSTM2D's recurrence, forward and backward, side by side. Not part of `make bench`.

    pip install numba                                     # which seqpipe itself does not need
    python benchmarks/spike/recurrence.py [--rounds N]

What each is and what was concluded stands in `benchmarks/README.md`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for `measuring`, as this file lies a folder deeper

import torch
from batched_eager import batched_eager
from measuring.benchmark import Benchmark
from measuring.gradients import gradients, largest_difference, reference_gradients
from measuring.markdown import Table, machine_in_words, milliseconds
from measuring.ours import Precision, kernels_of, numerics, precisions, set_up
from measuring.records import Record
from measuring.settings import TWO_THREADS, Setting
from measuring.timing import interleaved, say
from torch import Tensor, nn
from unrolled import unrolled

from sequencer_models import kernels
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.kernels import Kernels

SHAPES = ((128, 8, 192), (128, 4, 384))
"""Batch, tokens a side, channels: the two of the small model."""
LAST_BATCH = 80
"""Images in the last batch of an epoch of 18000."""

Forward = Callable[[BiLSTM2D, Tensor], Tensor]


class Candidate(nn.Module):
    """A way to compute a BiLSTM2D, and the kernels it is computed with."""

    def __init__(self, mixer: BiLSTM2D, forward: Forward, ways: Kernels) -> None:
        super().__init__()
        self.mixer = mixer
        self.by = forward
        self.ways = ways

    def forward(self, x: Tensor) -> Tensor:
        kernels.select(self.ways)
        return self.by(self.mixer, x)


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        import numba
        from numba_gates import numba_gates

        numba.set_num_threads(setting.threads or numba.get_num_threads())
        found: dict[str, Any] = {"shapes": [], "numba": numba.__version__}
        for batch, side, C in SHAPES:
            mixer = BiLSTM2D(C, C // 4)
            x, grad_out = torch.randn(batch, side, side, C, requires_grad=True), torch.randn(batch, side, side, C)
            exact = reference_gradients(Candidate(mixer, BiLSTM2D.forward_reference, Kernels()), x, grad_out)
            for precision in precisions(setting):
                resolved = kernels_of(numerics(precision, setting))
                compared = {
                    "nn.LSTM": Candidate(mixer, BiLSTM2D.forward_reference, Kernels()),
                    "four directions batched, eager": Candidate(mixer, batched_eager, Kernels()),
                    "unrolled, torch.compile": Candidate(mixer, unrolled, Kernels()),
                    "gates by numba": Candidate(mixer, numba_gates, Kernels()),
                    "C kernel": Candidate(mixer, BiLSTM2D.forward_native, Kernels("native", "matmul")),
                    f"C kernel, products by {resolved.linear} (as resolved)": Candidate(
                        mixer, BiLSTM2D.forward_native, resolved
                    ),
                }
                found["shapes"].append(
                    {"batch": batch, "side": side, "C": C, "precision": precision}
                    | {"ways": compare(compared, x, grad_out, exact, precision, options.rounds)}
                )
        last = torch.randn(LAST_BATCH, *x.shape[1:], requires_grad=True)
        one = compared["unrolled, torch.compile"]
        found["last_batch_s"] = round(first_call(one, last, grad_out[:LAST_BATCH], "fp32"), 1)
    return found


def compare(
    compared: dict[str, Candidate],
    x: Tensor,
    grad_out: Tensor,
    exact: dict[str, Tensor],
    precision: Precision,
    rounds: int,
) -> dict[str, Any]:
    """Times of all, the first call of each, and how far its gradients are from float64's."""
    first = {name: first_call(one, x, grad_out, precision) for name, one in compared.items()}
    off = {name: largest_difference(gradients(one, x, grad_out, precision), exact) for name, one in compared.items()}
    ways = {name: lambda one=one: gradients(one, x, grad_out, precision) for name, one in compared.items()}
    times = interleaved(ways, rounds)
    for name, taken in times.items():
        say(f"{tuple(x.shape)} {precision} {name}: {1000 * taken.median_s:.1f} ms, first call {first[name]:.1f} s")
    return {
        name: taken.to_json() | {"first_call_s": round(first[name], 2), "from_float64": off[name]}
        for name, taken in times.items()
    }


def first_call(one: Candidate, x: Tensor, grad_out: Tensor, precision: Precision) -> float:
    """Seconds of the first forward and backward pass at a shape, with whatever is compiled for it."""
    started = time.perf_counter()
    gradients(one, x, grad_out, precision)
    return time.perf_counter() - started


def tables(record: Record) -> list[Table]:
    found = []
    for part in record["settings"].values():
        shapes = part["figures"]["shapes"]
        titles = [f"{row['side']}x{row['side']}, C={row['C']}, {row['precision']}" for row in shapes]
        rows = []
        for number, name in enumerate(shapes[0]["ways"]):
            cells = []
            for shape in shapes:
                way = list(shape["ways"].values())[number]
                cells.append(f"{milliseconds(way)} ({way['from_float64']:.0e})")
            firsts = [f"{list(shape['ways'].values())[number]['first_call_s']:.1f}" for shape in shapes]
            rows.append([name, *cells, ", ".join(firsts)])
        notes = [
            f"A last batch of {LAST_BATCH} images costs torch.compile another {part['figures']['last_batch_s']} s. "
            f"numba {part['figures']['numba']}.",
            machine_in_words(part["machine"]),
        ]
        columns = ["ms, forward + backward (gradients from float64's)", *titles, "first call at each, s"]
        found.append(Table(f"Recurrence candidates, batch {shapes[0]['batch']}, 2 threads", columns, rows, notes))
    return found


BENCHMARK = Benchmark("spike_recurrence", measure, tables, settings=(TWO_THREADS,))

if __name__ == "__main__":
    BENCHMARK.main()
