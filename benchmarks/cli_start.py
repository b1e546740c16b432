"""How long a user waits for a command that has nothing to do, as a ratio to the bare interpreter, interleaved.

python benchmarks/cli_start.py
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 20
SEQPIPE = str(Path(sys.executable).with_name("seqpipe"))
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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"COLUMNS": "100"}
        subprocess.run([SEQPIPE, *TINY], cwd=folder, env=environment, check=True, capture_output=True)
        seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(REPEATS):
            for name, command in COMMANDS.items():
                started = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    bare = medians["python -c pass"]
    print(
        json.dumps(
            {name: {"median_s": round(value, 3), "times_bare_python": round(value / bare, 1)}
             for name, value in medians.items()},
            indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
