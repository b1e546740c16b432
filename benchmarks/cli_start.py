"""How long a user waits for a command that has nothing to do, as a ratio to the bare interpreter, interleaved.

python benchmarks/cli_start.py [--rounds N]
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import interleaved
from measuring.workspaces import SEQPIPE, Place

TINY = shlex.split(
    "run all --model vanilla --set data.source=synthetic --set data.fraction=0.1 --set train.epochs=1 "
    "--set model.hidden=8 --set model.layers=1"
)
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "seqpipe --help": [SEQPIPE, "--help"],
    "seqpipe run all, nothing to do": [SEQPIPE, *TINY],
    "seqpipe status": [SEQPIPE, "status"],
}


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), Path(folder) / "cache")
        place.run(*TINY)

        def run(command: list[str]) -> None:
            subprocess.run(command, cwd=folder, env=place.environ, check=True, capture_output=True)

        ways = {name: lambda command=command: run(command) for name, command in COMMANDS.items()}
        times = interleaved(ways, options.rounds, warm_up=1)
    bare = times["python -c pass"].median_s
    return {name: one.to_json() | {"times_bare_python": round(one.median_s / bare, 1)} for name, one in times.items()}


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        for name, found in part["figures"].items():
            rows.append([name, f"{found['median_ms'] / 1000:.3f}", f"{found['times_bare_python']:.1f}"])
        notes.append(machine_in_words(part["machine"]))
    return [Table("Commands that have nothing to do", ["", "seconds", "times bare Python"], rows, notes)]


BENCHMARK = Benchmark("cli_start", measure, tables)

if __name__ == "__main__":
    BENCHMARK.main()
