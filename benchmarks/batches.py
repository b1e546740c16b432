"""The batch pipeline alone (mapped uint8 arrays to augmented, normalised batches), beside training steps of small.

python benchmarks/batches.py [--rounds N]
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, percent
from measuring.ours import numerics, set_up
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import interleaved
from measuring.training import batches_of, first_batch, made_up_split, step, training_of

from pipeline.config.resolution import resolve
from pipeline.data.batches import LabelledImages
from pipeline.training.models import build_model


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    config = resolve("small")
    chosen = numerics("auto", setting)
    with tempfile.TemporaryDirectory() as name:
        batches = batches_of(on_disk(made_up_split(), Path(name)), config)
        batch = first_batch(batches)
        stream = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())
        with training_of(build_model(config, 4), config, chosen, batches) as training:
            ways = {"batch": lambda: next(stream), "step": step(training, chosen, batch)}
            times = interleaved(ways, options.rounds)
    rates = {name: len(batch) / taken.median_s for name, taken in times.items()}
    return {
        "precision": chosen.precision,
        **{name: taken.to_json() for name, taken in times.items()},
        "images_per_s": round(rates["batch"], 1),
        "times_the_step": round(rates["batch"] / rates["step"], 2),
    }


def on_disk(split: LabelledImages, folder: Path) -> LabelledImages:
    """The split as `prepare` leaves it: arrays that are mapped into memory."""
    np.save(folder / "train_images.npy", split.images)
    np.save(folder / "train_labels.npy", split.labels)
    return LabelledImages.open(folder, "train")


def tables(record: Record) -> list[Table]:
    columns = ["", "a batch, ms", "images/s", "a step, ms", "the step's rate, times", "of a batch and step together"]
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        share = found["batch"]["median_ms"] / (found["batch"]["median_ms"] + found["step"]["median_ms"])
        rows.append(
            [
                f"{part['label']}, {found['precision']}",
                milliseconds(found["batch"]),
                f"{found['images_per_s']:.0f}",
                milliseconds(found["step"]),
                f"{found['times_the_step']:.0f}",
                percent(share, 1),
            ]
        )
        notes.append(machine_in_words(part["machine"]))
    return [Table("Batches of 128 augmented images, beside training steps of small", columns, rows, notes)]


BENCHMARK = Benchmark("batches", measure, tables)

if __name__ == "__main__":
    BENCHMARK.main()
