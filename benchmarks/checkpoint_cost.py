"""What checkpoints and the journal cost a training of small: how long a save blocks the loop, how much time it takes.

    python benchmarks/checkpoint_cost.py

Interleaved in one process: rounds of steps with a save before them, and rounds without. A save costs what its round
takes longer; its share of the training is that over the seconds between two saves (one a minute, one an epoch).
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.config import resolve
from pipeline.data.batches import Normalisation, Split, TrainBatches
from pipeline.interrupts import Control
from pipeline.journal import Journal
from pipeline.reporting import Silent
from pipeline.stages.train import build_model
from pipeline.training import device
from pipeline.training.checkpoint import CheckpointWriter
from pipeline.training.loop import Training, Validation

ROUNDS = 20
STEPS = 5
JOURNAL_ROWS = 200


def main() -> None:
    config = resolve("small")
    numerics = device.resolve(config.compute, config.train.batch_size)
    numerics.apply()
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (18000, 32, 32, 3), dtype=np.uint8)
    split = Split(images, draws.integers(0, 4, len(images)))
    normalise = Normalisation((125.0,) * 3, (60.0,) * 3)
    batches = TrainBatches(split, normalise, config.train.augment, config.train.batch_size, seed=0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        with Journal(folder) as journal:
            writer = CheckpointWriter(folder, before=journal.sync, durable=lambda _: None)
            training = Training(
                model=build_model(config, 4),
                batches=batches,
                validation=Validation(split, normalise),
                config=config.train,
                numerics=numerics,
                journal=journal,
                writer=writer,
                reporter=Silent(),
                control=Control(),
                checkpoint_every_s=float("inf"),
            )
            training.model.train()
            stream = iter(batches.epoch(0))

            def steps() -> float:
                started = time.perf_counter()
                for _ in range(STEPS):
                    training._step(*next(stream))
                return time.perf_counter() - started

            for _ in range(2):
                steps()
            blocked, with_save, without = [], [], []
            for _ in range(ROUNDS // 2):
                for saves in (True, False):
                    started = time.perf_counter()
                    if saves:
                        training.save()
                        blocked.append(time.perf_counter() - started)
                    steps()
                    writer.wait()  # the whole write belongs to this round
                    (with_save if saves else without).append(time.perf_counter() - started)
                    stream = iter(batches.epoch(0))
            row = {"train/loss": 1.0, "train/accuracy": 0.5, "validation/loss": 1.0, "validation/accuracy": 0.5}
            started = time.perf_counter()
            for step in range(JOURNAL_ROWS):
                journal.metrics(row, step)
            journal_s = (time.perf_counter() - started) / JOURNAL_ROWS
            writer.close()
    save_s = max(0.0, statistics.median(with_save) - statistics.median(without))
    step_s = statistics.median(without) / STEPS
    epoch_s = len(batches) * step_s
    saves_a_second = 1 / config.compute.checkpoint_every_s + 1 / epoch_s
    rows_a_second = 1 / 10 + 1 / epoch_s
    print(
        json.dumps(
            {
                "numerics": numerics.to_json(),
                "step_s": round(step_s, 4),
                "blocked_s_median": round(statistics.median(blocked), 4),
                "blocked_s_max": round(max(blocked), 4),
                "save_costs_s": round(save_s, 4),
                "journal_row_s": round(journal_s, 6),
                "share_of_training_percent": round(100 * (save_s * saves_a_second + journal_s * rows_a_second), 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
