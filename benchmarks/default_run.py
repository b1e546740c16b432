"""The default `seqpipe run all`, from nothing but the data: time, peak memory of the process tree, test accuracy.

    python benchmarks/default_run.py [--data FOLDER] [seqpipe run's own flags]

Works in a new folder. `--data` is a `.seqpipe/data` folder with the data set in it, so that the download is not part
of the time; without it the data is fetched first, by `seqpipe run prepare`, outside the time as well.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, percent
from measuring.records import Record
from measuring.settings import Setting
from measuring.workspaces import Place, with_data

from tuning.capped.run_capped import tree_memory_mb

EVERY_S = 0.25


def resident_mb(pid: int) -> float:
    """Resident memory of a process tree, shared pages counted in each process."""
    try:
        parent = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = with_data(Place(Path(folder) / "place", Path(folder) / "cache"), options.data)
        with (place.root / "out.json").open("w") as output:
            started = time.monotonic()
            process = place.start("run", "all", "--json", *options.flags, stdout=output, stderr=None)
            peaks = {"private": 0.0, "resident": 0.0}
            done = threading.Event()

            def watch() -> None:
                while not done.wait(EVERY_S):
                    peaks["private"] = max(peaks["private"], tree_memory_mb(process.pid))
                    peaks["resident"] = max(peaks["resident"], resident_mb(process.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            code = process.wait()
            seconds = time.monotonic() - started
            done.set()
            watcher.join()
        if code != 0:
            sys.exit(code)
        models = json.loads((place.root / "out.json").read_text())["models"]
    return {
        "command": " ".join(["seqpipe run all", *options.flags]),
        "seconds": round(seconds, 1),
        "peak_private_mb": round(peaks["private"]),
        "peak_resident_mb": round(peaks["resident"]),
        "models": [
            {
                "model": model["model"],
                "test_accuracy": model["test_accuracy"],
                "interval_95": [model["evaluation"]["accuracy_low"], model["evaluation"]["accuracy_high"]],
                "test_loss": model["evaluation"]["loss"],
                "images_per_second": round(model["training"]["images_per_s"], 1),
                "numerics": model["training"]["numerics"],
            }
            for model in models
        ],
    }


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        for model in found["models"]:
            low, high = (percent(value, 2) for value in model["interval_95"])
            rows.append(
                [
                    model["model"],
                    f"{percent(model['test_accuracy'], 2)} ({low} to {high})",
                    f"{model['images_per_second']:.0f}",
                    f"{found['seconds'] / 60:.1f}",
                    f"{found['peak_private_mb']} ({found['peak_resident_mb']})",
                ]
            )
        notes += [f"`{found['command']}`", machine_in_words(part["machine"])]
    columns = ["model", "test accuracy", "images/s", "minutes in all", "peak memory in all, MB (resident)"]
    return [Table("The default run", columns, rows, notes)]


BENCHMARK = Benchmark("default_run", measure, tables, rounds=None, takes_flags=True)

if __name__ == "__main__":
    BENCHMARK.main()
