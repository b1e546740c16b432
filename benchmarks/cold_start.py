"""What a user waits for: seconds from `seqpipe run train` until the first training step of small is done.

    python benchmarks/cold_start.py [--rounds N] [--data FOLDER]

"first run ever": a new workspace and an empty cache folder, so that the kernel is compiled, the ways to compute are
measured and the MLflow store is made. "afterwards": `--fresh` in the same workspace. In turn. The data set is
prepared before, and Python's and torch's files are in the system's page cache.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import Times, say
from measuring.workspaces import new_place, prepared

FIRST_STEP = re.compile(r"epoch 1/\d+, step \d+/")
COMMAND = ("run", "train", "--model", "small")


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"first run ever": [], "afterwards": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = prepared(folder, options.data)
        for number in range(options.rounds):
            place = new_place(folder, template, str(number))
            for when, more in (("first run ever", ()), ("afterwards", ("--fresh",))):
                taken = place.seconds_until(lambda line: bool(FIRST_STEP.search(line)), *COMMAND, *more)
                seconds[when].append(taken)
                say(f"{when}: {taken:.1f} s")
            shutil.rmtree(place.root)
            shutil.rmtree(place.cache)
    return {when: Times(tuple(taken)).to_json() for when, taken in seconds.items()}


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        for when, found in part["figures"].items():
            low, middle, high = (found[key] / 1000 for key in ("quartile_1_ms", "median_ms", "quartile_3_ms"))
            rows.append([when, f"{middle:.1f}", f"{low:.1f} to {high:.1f}"])
        notes.append(machine_in_words(part["machine"]))
    return [Table("From the command to the first training step of small", ["", "seconds", "quartiles"], rows, notes)]


BENCHMARK = Benchmark("cold_start", measure, tables)

if __name__ == "__main__":
    BENCHMARK.main()
