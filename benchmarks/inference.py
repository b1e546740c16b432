"""Inference of small at batch 1 and 128, fp32, against the same network of timm's blocks with the same weights.

python benchmarks/inference.py [--rounds N]
"""

import argparse
from typing import Any

import torch
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, times
from measuring.ours import kernels_of, numerics, set_up
from measuring.records import Record
from measuring.settings import EVERY, Setting
from measuring.timing import interleaved, speedup
from measuring.variants import networks
from torch import Tensor, nn

from pipeline.config.resolution import resolve
from sequencer_models import kernels
from sequencer_models.kernels import Kernels

REPEATS = {1: 5, 128: 1}
"""By batch size: how many times as many rounds, since small calls vary more."""


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    set_up(setting)
    chosen = kernels_of(numerics("fp32", setting))
    with torch.inference_mode():
        return compare(options.rounds, chosen)


def compare(rounds: int, chosen: Kernels) -> list[dict[str, Any]]:
    """Both networks at every batch size."""
    ours, theirs = networks(resolve("small"))
    assert theirs is not None
    ours.eval()
    theirs.eval()

    def run(network: nn.Module, ways: Kernels, images: Tensor) -> Tensor:
        kernels.select(ways)
        logits: Tensor = network(images)
        return logits

    found = []
    for batch, more in REPEATS.items():
        images = torch.randn(batch, 3, 32, 32)
        mine, peers = run(ours, chosen, images), run(theirs, Kernels(), images)
        taken = interleaved(
            {
                "ours": lambda images=images: run(ours, chosen, images),  # type: ignore[misc]
                "timm": lambda images=images: run(theirs, Kernels(), images),  # type: ignore[misc]
            },
            more * rounds,
        )
        found.append(
            {
                "batch": batch,
                **{name: one.to_json() for name, one in taken.items()},
                **speedup(taken["timm"], taken["ours"]),
                "images_per_s": round(batch / taken["ours"].median_s, 1),
                "largest_difference": ((mine - peers).abs().max() / peers.abs().max()).item(),
            }
        )
    return found


def tables(record: Record) -> list[Table]:
    columns = ["", "batch", "ours ms", "timm ms", "ratio (quartiles)", "images/s", "difference of logits"]
    rows = [
        [
            part["label"],
            str(row["batch"]),
            milliseconds(row["ours"]),
            milliseconds(row["timm"]),
            times(row),
            f"{row['images_per_s']:.0f}",
            f"{row['largest_difference']:.0e}",
        ]
        for part in record["settings"].values()
        for row in part["figures"]
    ]
    notes = [machine_in_words(part["machine"]) for part in record["settings"].values()]
    return [Table("Inference of small, fp32, against the same of timm's blocks", columns, rows, notes[:1])]


BENCHMARK = Benchmark("inference", measure, tables, settings=EVERY)

if __name__ == "__main__":
    BENCHMARK.main()
