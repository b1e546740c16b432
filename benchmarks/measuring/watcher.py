"""A look at trials from outside of the search: python -m measuring.watcher FOLDER

Each trial puts a file, named by its process id, into FOLDER; a line with the most that each was seen to hold is
written to stdout when stdin ends. It uses no more of seqpipe than what a process tree is charged with.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuning.capped.memory_usage import tree_memory_mb

LOOK_S = 0.01


@contextmanager
def watching(folder: Path) -> Iterator[dict[str, float]]:
    """Fills what it gives, when it ends: the most that each named process and its children held, by what it wrote."""
    peaks: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "measuring.watcher", str(folder)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield peaks
        finally:
            told, _ = process.communicate()
    peaks.update(json.loads(told))


def main() -> None:
    folder, peaks = Path(sys.argv[1]), dict[int, float]()
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    next_listing = 0.0
    alive: list[int] = []
    while not done.is_set():
        if time.monotonic() >= next_listing:
            next_listing = time.monotonic() + 0.1
            pids = [int(path.name) for path in folder.iterdir()]
            alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        for pid in alive:
            peaks[pid] = max(peaks.get(pid, 0.0), tree_memory_mb(pid))
        done.wait(LOOK_S)
    by_hog: dict[str, float] = {}
    for pid, peak in peaks.items():
        hog = (folder / str(pid)).read_text()
        by_hog[hog] = max(by_hog.get(hog, 0.0), peak)
    print(json.dumps(by_hog))


if __name__ == "__main__":
    main()
