"""Where the time of a recipe's training step goes: its share of the GEMM peak, and what stem and optimiser take.

    python benchmarks/recipe_step.py [--rounds N] [--settings NAME ...]

The loop's own steps, four classes, each in turn with the same large products. The share of the peak is of the
arithmetic of the model and of its optimiser together. A stem is timed alone, forward and backward.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from measuring import gemm
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, percent
from measuring.ours import Precision, numerics, precisions, set_up
from measuring.records import Record
from measuring.settings import EVERY, Setting
from measuring.timing import interleaved, say
from measuring.training import batches_of, first_batch, made_up_split, optimizer_alone, step, training_of
from torch import nn

from pipeline.config.resolution import resolve
from pipeline.data.batch import Batch
from pipeline.training.loop import Training
from pipeline.training.models import build_model
from sequencer_models.flops import training_flops

RECIPES = (("small", "default"), ("small", "fast"), ("small", "best"), ("vanilla", "best"))
CLASSES = 4


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    return {precision: _measured(precision, setting, options.rounds) for precision in precisions(setting)}


def _measured(precision: Precision, setting: Setting, rounds: int) -> dict[str, Any]:
    ways: dict[str, Callable[[], object]] = gemm.ways((precision,))
    flops: dict[str, dict[str, float]] = {}
    with ExitStack() as trainings:
        for model, recipe in RECIPES:
            name = f"{model}, {recipe}"
            config = resolve(model, flags={"recipe": recipe})
            batches = batches_of(made_up_split(1000), config)
            chosen = numerics(precision, setting)
            training = trainings.enter_context(training_of(build_model(config, CLASSES), config, chosen, batches))
            batch = first_batch(batches)
            ways[name] = step(training, chosen, batch)
            ways[f"{name}: optimiser"] = optimizer_alone(training)
            flops[name] = {
                "optimiser": training.optimizer.flops,
                "model": len(batch) * training_flops(training.model, batch.images[:1]),
            }
            if isinstance(stem := getattr(training.model, "stem", None), nn.Module):
                ways[f"{name}: stem"] = _stem_alone(training, stem, batch)
                flops[name]["stem"] = len(batch) * training_flops(stem, batch.images[:1])
        times = interleaved(ways, rounds)
    peak = gemm.rates(times, precision)
    found: dict[str, Any] = {"gemm_gflop_per_s": peak, "recipes": {}}
    for name, counted in flops.items():
        whole = counted["model"] + counted["optimiser"]
        rate = whole / times[name].median_s / 1e9
        say(f"{name}, {precision}: {rate:.0f} GFLOP/s of {peak['peak']:.0f}")
        found["recipes"][name] = {
            "step": times[name].to_json(),
            "images_per_s": round(len(batch) / times[name].median_s, 1),
            "gflop_per_image": round(whole / len(batch) / 1e9, 3),
            "share_of_peak": round(rate / peak["peak"], 3),
            "parts": {
                part: {
                    **times[f"{name}: {part}"].to_json(),
                    "share_of_time": round(times[f"{name}: {part}"].median_s / times[name].median_s, 4),
                    "share_of_arithmetic": round(counted[part] / whole, 4),
                }
                for part in ("stem", "optimiser")
                if part in counted
            },
        }
    return found


def _stem_alone(training: Training, stem: nn.Module, batch: Batch) -> Callable[[], object]:
    def one() -> None:
        with training.numerics.autocast():
            tokens = stem(batch.images)
        tokens.sum().backward()

    return one


def tables(record: Record) -> list[Table]:
    columns = [
        "", "a step, ms", "images/s", "GFLOP an image", "of the GEMM peak", "stem: of the time / of the arithmetic",
        "optimiser: the same",
    ]  # fmt: skip
    found = []
    for part in record["settings"].values():
        rows, peaks = [], []
        for precision, figures in part["figures"].items():
            rates = figures["gemm_gflop_per_s"]
            peaks.append(f"{precision} {rates['BLAS']:.0f} by the BLAS and {rates['oneDNN']:.0f} by oneDNN")
            for name, row in figures["recipes"].items():
                rows.append([
                    f"{name}, {precision}", milliseconds(row["step"]), f"{row['images_per_s']:.0f}",
                    f"{row['gflop_per_image']:.2f}", percent(row["share_of_peak"]),
                    *(_shares(row["parts"].get(one)) for one in ("stem", "optimiser")),
                ])  # fmt: skip
        notes = [f"Batch 128; GEMM, GFLOP/s: {', '.join(peaks)}.", machine_in_words(part["machine"])]
        found.append(Table(f"Training steps of the recipes: {part['label']}", columns, rows, notes))
    return found


def _shares(part: dict[str, float] | None) -> str:
    if part is None:
        return "-"
    return f"{percent(part['share_of_time'], 1)} / {percent(part['share_of_arithmetic'], 1)}"


BENCHMARK = Benchmark("recipe_step", measure, tables, settings=EVERY)

if __name__ == "__main__":
    BENCHMARK.main()
