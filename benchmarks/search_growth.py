"""Two thousand toy trials in one search: what the driver holds, how long a proposal takes, how long the ledger.

    python benchmarks/search_growth.py [--trials N]

The memory is that which the driver's process alone holds, looked at after every hundredth trial. Proposals and
reading are timed afterwards, on the rows of the whole search.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.toy import EPOCHS, Toy

from tuning.capped.run_capped import process_memory_mb
from tuning.ledger import Row, read
from tuning.observer import Observer
from tuning.sampler import Sampler
from tuning.search import run_search
from tuning.settings import Settings
from tuning.space import Space

TRIALS, EARLY = 2000, 200
EVERY = 100
CAP_MB = 120
TIMES = 20
SPACE = Space.parse(
    {
        "x": {"uniform": [0.0, 1.0]},
        "train.learning_rate": {"log_uniform": [5e-4, 8e-3]},
        "train.weight_decay": {"log_uniform": [0.005, 0.3]},
        "train.label_smoothing": {"uniform": [0.0, 0.2]},
        "train.batch_size": {"choice": [32, 64, 128]},
        "train.augment.translate_pixels": {"integer": [0, 4]},
        "model.drop_path": {"uniform": [0.0, 0.3]},
        "model.depths": {"choice": [[4, 3], [3, 3], [6, 4]]},
        "model.dims": {"choice": [[96, 192], [128, 256], [192, 384]]},
    }
)
DEFAULT = {name: parameter.arguments()[0] for name, parameter in SPACE.items()}


class Growth(Observer):
    """Keeps what this process holds after every hundredth trial."""

    def __init__(self) -> None:
        self.ended = 0
        self.held_mb: dict[int, float] = {}

    def finished(self, row: Row) -> None:
        self.ended += 1
        if self.ended % EVERY == 0:
            self.held_mb[self.ended] = round(process_memory_mb(os.getpid()), 1)
            say(f"trial {self.ended}: {self.held_mb[self.ended]:.1f} MB")


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    growth = Growth()
    settings = Settings(options.trials, EPOCHS, cap_mb=CAP_MB, concurrency=2)
    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        rows = list(run_search(Toy(), SPACE, DEFAULT, Path(name), {"model": "toy"}, settings, observer=growth).rows)
        seconds = time.monotonic() - started
        read_s = statistics.median(_seconds(lambda: read(Path(name))) for _ in range(TIMES))
    first_s, *proposals_s = _proposals_s(rows)
    return {
        "trials": len(rows),
        "seconds": round(seconds, 1),
        "held_mb": growth.held_mb,
        "propose_ms": {
            "median": round(statistics.median(proposals_s) * 1000, 1),
            "most": round(max(proposals_s) * 1000, 1),
            "first": round(first_s * 1000, 1),
        },
        "read_s": round(read_s, 3),
    }


def _proposals_s(rows: list[Row]) -> list[float]:
    """The first, as after a restart, and some more, between which a row is proposed and another one changes."""
    sampler = Sampler(SPACE, 0, "optuna", "max")
    found = []
    for number in range(TIMES + 1):
        found.append(_seconds(partial(sampler.propose, rows)))
        again = rows[number]
        rows = [*rows[:number], Row(**vars(again)), *rows[number + 1 :], Row(len(rows), again.config, "optuna")]
    return found


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        held = {int(number): mb for number, mb in found["held_mb"].items()}
        early, last = held[EARLY], held[found["trials"]]
        ms = found["propose_ms"]
        rows += [
            [f"the driver's memory after trial {EARLY}", f"{early:.1f} MB", ""],
            [f"after trial {found['trials']}", f"{last:.1f} MB ({last - early:+.1f})", "within 40 MB"],
            ["the most after it", f"{max(held.values()):.1f} MB ({max(held.values()) - early:+.1f})", ""],
            [
                f"a proposal at {found['trials']} rows",
                f"{ms['median']:.0f} ms, {ms['most']:.0f} at most ({ms['first']:.0f} the first after a start)",
                "under 50 ms",
            ],
            ["reading the ledger", f"{found['read_s']:.2f} s", "under 1 s"],
        ]
        notes += [f"The search took {found['seconds']:.0f} s.", machine_in_words(part["machine"])]
    return [Table("A long search", ["what", "measured", "asked"], rows, notes)]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"a multiple of {EARLY}")


BENCHMARK = Benchmark("search_growth", measure, tables, rounds=None, add_arguments=_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
