"""Small from a cold start to the notebooks' best accuracy, 84.85 %, on validation: seconds and epochs. Minutes long.

    python benchmarks/time_to_accuracy.py [--data FOLDER] [--repeat N] [seqpipe run's own flags]

The first run ever: a new workspace and an empty cache folder, so that compiling, measuring and making the MLflow
store are part of the time; the data set is prepared before. The whole training is run; the time is that of the first
epoch that reached it, from the start of the command.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.curves import ACCURACY, trained
from measuring.markdown import Table, machine_in_words, percent
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.workspaces import new_place, prepared

GOAL = 0.8485


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = prepared(folder, options.data, options.flags)
        for number in range(options.repeat):
            place = new_place(folder, template, str(number))
            started = time.time()
            rows = trained(place, ["--model", "small", "--seed", str(number), *options.flags])
            reached = next((row for row in rows if row[ACCURACY] >= GOAL), None)
            found.append(
                {
                    "seed": number,
                    "seconds": round(reached["time_s"] - started, 1) if reached else None,
                    "epoch": reached["epoch"] if reached else None,
                    "whole_seconds": round(rows[-1]["time_s"] - started, 1),
                    "epochs": len(rows),
                    "images_per_s": round(statistics.median(row["images_per_second"] for row in rows), 1),
                    "accuracies": [row[ACCURACY] for row in rows],
                    "epoch_seconds": [round(row["time_s"] - started, 1) for row in rows],
                }
            )
            shutil.rmtree(place.root)
            say(f"seed {number}: {found[-1]['seconds']} s, epoch {found[-1]['epoch']}")
    return found


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        for found in part["figures"]:
            reached = found["seconds"] is not None
            rows.append(
                [
                    str(found["seed"]),
                    f"{found['seconds']:.0f}" if reached else "not reached",
                    f"{found['epoch']} of {found['epochs']}" if reached else f"- of {found['epochs']}",
                    f"{found['whole_seconds']:.0f}",
                    percent(found["accuracies"][-1], 2),
                    f"{found['images_per_s']:.0f}",
                ]
            )
        notes.append(machine_in_words(part["machine"]))
    columns = ["seed", "seconds", "epoch", "whole training, s", "accuracy at its end", "images/s"]
    return [Table(f"Small, first run ever, to {percent(GOAL, 2)} on validation", columns, rows, notes)]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=int, default=1, help="trainings, seeds from 0 on")


BENCHMARK = Benchmark("time_to_accuracy", measure, tables, rounds=None, add_arguments=_arguments, takes_flags=True)

if __name__ == "__main__":
    BENCHMARK.main()
