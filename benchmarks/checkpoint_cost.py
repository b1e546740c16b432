"""What checkpoints and the journal cost a training of small: how long a save blocks the loop, how much time it takes.

    python benchmarks/checkpoint_cost.py [--rounds N]

Interleaved in one process: rounds of steps with a save before them, and rounds without. A save costs what its round
takes longer; its share of the training is that over the seconds between two saves (one a minute, one an epoch).
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.ours import numerics, set_up
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import Times, interleaved
from measuring.training import batches_of, first_batch, made_up_split, step, training_of

from pipeline.config.resolution import resolve
from pipeline.training.loop import Training
from pipeline.training.models import build_model

STEPS = 5
JOURNAL_ROWS = 200
JOURNAL_EVERY_S = 10


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    config = resolve("small")
    chosen = numerics("auto", setting)
    batches = batches_of(made_up_split(), config)
    # In the working folder: a temporary one may lie in memory, where writing costs nothing.
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        training_of(build_model(config, 4), config, chosen, batches, Path(folder)) as training,
    ):
        one = step(training, chosen, first_batch(batches))
        blocked = []

        def steps() -> None:
            for _ in range(STEPS):
                one()
            training.writer.wait()  # the whole write belongs to this round

        def save_and_steps() -> None:
            started = time.perf_counter()
            training.save()
            blocked.append(time.perf_counter() - started)
            steps()

        times = interleaved({"with": save_and_steps, "without": steps}, options.rounds)
        journal_s = seconds_of_a_row(training)
    without = times["without"].median_s
    save_s = max(0.0, times["with"].median_s - without)
    epoch_s = len(batches) * without / STEPS
    saves_a_second = 1 / config.compute.checkpoint_every_s + 1 / epoch_s
    rows_a_second = 1 / JOURNAL_EVERY_S + 1 / epoch_s
    return {
        "numerics": chosen.to_json(),
        "step_s": round(without / STEPS, 4),
        "blocked": Times(tuple(blocked)).to_json(),
        "blocked_s_max": round(max(blocked), 4),
        "save_costs_s": round(save_s, 4),
        "journal_row_s": round(journal_s, 6),
        "share_of_training_percent": round(100 * (save_s * saves_a_second + journal_s * rows_a_second), 3),
    }


def seconds_of_a_row(training: Training) -> float:
    """What writing one epoch's figures to the journal takes."""
    row = {"train/loss": 1.0, "train/accuracy": 0.5, "validation/loss": 1.0, "validation/accuracy": 0.5}
    started = time.perf_counter()
    for number in range(JOURNAL_ROWS):
        training.journal.metrics(row, number)
    return (time.perf_counter() - started) / JOURNAL_ROWS


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        rows.append(
            [
                f"{found['share_of_training_percent']:.2f} %",
                f"{found['blocked']['median_ms'] / 1000:.3f}",
                f"{found['blocked_s_max']:.3f}",
                f"{found['save_costs_s']:.3f}",
                f"{found['step_s']:.3f}",
            ]
        )
        notes.append(machine_in_words(part["machine"]))
    columns = ["of the training time", "a save blocks, s", "longest", "a save costs, s", "a step, s"]
    return [Table("Checkpoints and journal of a training of small", columns, rows, notes)]


BENCHMARK = Benchmark("checkpoint_cost", measure, tables)

if __name__ == "__main__":
    BENCHMARK.main()
