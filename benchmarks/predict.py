"""`seqpipe predict`: files against pixels in memory, reading threads against processes, memory for 100 000 files.

    python benchmarks/predict.py [--rounds N] [--files N]

small classifies a folder of PNGs of 32 x 32 pixels, and one of 256 x 256, in turn with the same pixels in memory. The
reading processes are started before they are timed. The peak is that of the real command over many names of the small
files, its results in a CSV file.
"""

import argparse
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import interleaved, say, speedup
from measuring.workspaces import Place
from PIL import Image

from pipeline import load_model
from pipeline.inference import reading
from pipeline.inference.classifier import Classifier
from pipeline.inference.classify import classify_files

SMALL = shlex.split("run all --model small --set data.source=synthetic --set data.fraction=0.1 --set train.epochs=1")
FOLDERS = {32: 2000, 256: 500}
"""Pixels on a side, and how many files of that size."""
POLL_S = 0.02


class ReadingProcesses:
    """Stands in for the threads: processes that are there already, and stay."""

    def __init__(self, count: int) -> None:
        self.pool = ProcessPoolExecutor(count, get_context("spawn"))
        list(self.pool.map(abs, range(4 * count)))

    def __call__(self, *_: object, **__: object) -> "ReadingProcesses":
        return self

    def __enter__(self) -> "ReadingProcesses":
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, *words: Any) -> Any:
        return self.pool.submit(*words)

    def shutdown(self, **_: object) -> None: ...


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    if setting.threads:
        torch.set_num_threads(setting.threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "place", Path(folder) / "cache")
        for path in (place.root, place.cache):
            path.mkdir()
        say("small is trained and registered")
        place.run(*SMALL)
        classifier = load_model(workspace=place.root)
        found: dict[str, Any] = {}
        processes = ReadingProcesses(torch.get_num_threads())
        for side, count in FOLDERS.items():
            say(f"{count} PNGs of {side} x {side}")
            found[f"{side} x {side}"] = compare(
                classifier, write_images(Path(folder), side, count), processes, options
            )
        processes.pool.shutdown()
        say(f"{options.files} files, the real command")
        found["memory"] = peak_of_command(place, Path(folder), options.files)
    return found


def compare(
    classifier: Classifier, files: Sequence[str], processes: ReadingProcesses, options: argparse.Namespace
) -> dict[str, Any]:
    """Images per second from memory, and from files that threads or processes read."""
    pixels = np.concatenate([batch.pixels for batch in reading.read_batches(files, 250, 2)])

    def classified(readers: Callable[..., Executor] | ReadingProcesses) -> None:
        reading.ThreadPoolExecutor = readers  # type: ignore[assignment, misc]
        assert sum(map(len, classify_files(classifier, files))) == len(files)

    times = interleaved(
        {
            "pixels in memory": lambda: classifier.predictions(pixels),
            "files, read in threads": lambda: classified(ThreadPoolExecutor),
            "files, read in processes": lambda: classified(processes),
        },
        options.rounds,
        warm_up=1,
    )
    reading.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[misc]
    memory = times["pixels in memory"]
    return {
        name: one.to_json() | {"images_per_s": round(len(files) / one.median_s, 1)} | speedup(memory, one)
        for name, one in times.items()
    }


def write_images(folder: Path, side: int, count: int) -> list[str]:
    """Made-up photos: noise over ramps, so that PNG has something to compress."""
    draws = np.random.default_rng(side)
    ramps = np.indices((side, side)).sum(axis=0)[:, :, None] * (90 / side)
    into = folder / str(side)
    into.mkdir()
    for number in range(count):
        pixels = ramps + draws.normal(draws.uniform(0, 150, 3), 12, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(into / f"{number:05}.png")
    return sorted(map(str, into.iterdir()))


def peak_of_command(place: Place, folder: Path, count: int) -> dict[str, Any]:
    """Peak memory and speed of `seqpipe predict` over `count` names of the small files."""
    files = sorted((folder / "32").iterdir())
    many = folder / "many"
    for number in range(count):
        into = many / str(number // 5000)
        into.mkdir(parents=True, exist_ok=True)
        (into / f"{number:06}.png").symlink_to(files[number % len(files)])
    started = time.monotonic()
    process = place.start("predict", str(many), "--csv", str(folder / "out.csv"), stderr=None)
    peak = 0.0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        time.sleep(POLL_S)
    assert process.wait() == 0
    taken = time.monotonic() - started
    with (folder / "out.csv").open() as file:
        assert sum(1 for _ in file) == count + 1
    return {"files": count, "peak_resident_mb": round(peak), "seconds": round(taken, 1)}


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        figures = dict(part["figures"])
        memory = figures.pop("memory")
        for size, ways in figures.items():
            for name, one in ways.items():
                rows.append([size, name, f"{one['images_per_s']:.0f}", f"{one['speedup']:.2f}"])
        notes.append(
            f"`seqpipe predict` over {memory['files']} files: {memory['peak_resident_mb']} MB resident at most, "
            f"{memory['seconds']:.0f} s."
        )
        notes.append(machine_in_words(part["machine"]))
    columns = ["PNGs", "", "images/s", "of the speed from memory"]
    return [Table("Classifying files with small, fp32", columns, rows, notes)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=100_000, help="of the run whose memory is watched")


BENCHMARK = Benchmark("predict", measure, tables, add_arguments=add_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
