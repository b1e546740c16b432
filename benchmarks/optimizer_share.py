"""What an optimiser takes of a training step: AdamW and Muon, by time and by arithmetic.

    python benchmarks/optimizer_share.py [--rounds N] [--settings NAME ...]

Interleaved in one process: whole steps of small with each, and each one's part of them alone.
"""

import argparse
from contextlib import ExitStack
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, percent
from measuring.ours import numerics, precisions, set_up
from measuring.records import Record
from measuring.settings import EVERY, Setting
from measuring.timing import interleaved
from measuring.training import batches_of, first_batch, made_up_split, optimizer_alone, step, training_of

from pipeline.config.resolution import resolve
from pipeline.training.models import build_model
from sequencer_models.flops import training_flops

OPTIMISERS = ("adamw", "muon")


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    return {precision: _measured(precision, setting, options.rounds) for precision in precisions(setting)}


def _measured(precision: str, setting: Setting, rounds: int) -> dict[str, Any]:
    ways, flops = {}, {}
    with ExitStack() as trainings:
        for name in OPTIMISERS:
            config = resolve("small", sets=[f"train.optimizer={name}"])
            chosen = numerics(precision, setting)
            batches = batches_of(made_up_split(1000), config)
            training = trainings.enter_context(training_of(build_model(config, 4), config, chosen, batches))
            batch = first_batch(batches)
            ways[name] = step(training, chosen, batch)
            ways[f"{name} alone"] = optimizer_alone(training)
            of_model = len(batch) * training_flops(training.model, batch.images[:1])
            flops[name] = (training.optimizer.flops, of_model)
        times = interleaved(ways, rounds)
    return {
        name: {
            "step": times[name].to_json(),
            "alone": times[f"{name} alone"].to_json(),
            "share_of_time": round(times[f"{name} alone"].median_s / times[name].median_s, 4),
            "share_of_arithmetic": round(own / (own + of_model), 4),
            "gflop": round(own / 1e9, 2),
        }
        for name, (own, of_model) in flops.items()
    }


def tables(record: Record) -> list[Table]:
    columns = ["", "a step, ms", "the optimiser's part, ms", "of the time", "of the arithmetic", "GFLOP"]
    found = []
    for part in record["settings"].values():
        rows = [
            [
                f"{precision}, {name}",
                milliseconds(row["step"]),
                milliseconds(row["alone"]),
                percent(row["share_of_time"], 1),
                percent(row["share_of_arithmetic"], 1),
                f"{row['gflop']:.0f}",
            ]
            for precision, figures in part["figures"].items()
            for name, row in figures.items()
        ]
        title = f"What an optimiser takes of a step of small: {part['label']}"
        found.append(Table(title, columns, rows, [machine_in_words(part["machine"])]))
    return found


BENCHMARK = Benchmark("optimizer_share", measure, tables, settings=EVERY)

if __name__ == "__main__":
    BENCHMARK.main()
