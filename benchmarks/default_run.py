"""The default `seqpipe run all`, from nothing but the data: time, peak memory of the process tree, test accuracy.

    python benchmarks/default_run.py [--cache FOLDER] [seqpipe run's own flags]

Works in a new folder. `--cache` is a `.seqpipe/data` folder with the data set in it, so that the download is not part
of the time; without it the data is fetched first, by `seqpipe run prepare`, outside the time as well.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tuning.memory import tree_memory_mb

EVERY_S = 0.25


def resident_mb(pid: int) -> float:
    """Resident memory of a process tree, shared pages counted in each process."""
    try:
        parent = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path)
    arguments, flags = parser.parse_known_args()
    seqpipe = str(Path(sys.executable).with_name("seqpipe"))
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        if arguments.cache:
            shutil.copytree(arguments.cache, workspace / ".seqpipe" / "data")
        else:
            subprocess.run([seqpipe, "run", "prepare"], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(workspace / ".seqpipe" / "stages")
        with (workspace / "out.json").open("w") as output:
            started = time.monotonic()
            process = subprocess.Popen([seqpipe, "run", "all", "--json", *flags], cwd=workspace, stdout=output)
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
        models = json.loads((workspace / "out.json").read_text())["models"]
    print(
        json.dumps(
            {
                "command": " ".join(["seqpipe run all", *flags]),
                "seconds": round(seconds, 1),
                "peak_private_mb": round(peaks["private"]),
                "peak_resident_mb": round(peaks["resident"]),
                "cores": psutil.cpu_count(logical=False),
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
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
