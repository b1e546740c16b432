"""Real trials of which every third is a hog, under a memory cap: who is ended, how far over, and what others notice.

    python benchmarks/search_caps.py [--data FOLDER]

A trial has few images, so that it takes seconds. Those that are no hogs are trained again, alone and without a
search, and every figure is compared.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import HOGS, NONE, WithHogs, run_in_a_loop, training_trial, untimed
from measuring.watcher import watching
from measuring.workspaces import Place, with_data

from pipeline.config.resolution import resolve
from pipeline.search.trial import warm_up
from tuning.ledger import Ledger, Row
from tuning.observer import Observer
from tuning.search import run_search
from tuning.settings import Settings
from tuning.space import Space

TRIALS, EVERY = 30, 3
CAP_MB = 1400
LARGE_BATCH = 1024
SETS = ("data.fraction=0.08", "train.epochs=2", "compute.threads=1", "compute.device=cpu")
SPACE = Space.parse(
    {"train.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "hog": {"choice": [NONE, *HOGS]}},
)
IDENTITY = {"model": "small", "what": "every third is a hog"}


class Telling(Observer):
    def finished(self, row: Row) -> None:
        assert row.finish is not None
        say(f"trial {row.number} ({row.config['hog']}): {row.finish.outcome}, {row.finish.peak_mb:.0f} MB")


def configs() -> list[dict[str, Any]]:
    """Every third is a hog, of each kind in turn."""
    return [
        {
            "train.learning_rate": 1e-3 * (1 + number / 10),
            "hog": HOGS[number // EVERY % len(HOGS)] if number % EVERY == EVERY - 1 else NONE,
        }
        for number in range(TRIALS)
    ]


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = with_data(Place(folder / "place", folder / "cache"), options.data)
        training = training_trial(resolve("small", sets=SETS), place.root)
        (folder / "watched").mkdir()
        objective = WithHogs(training, str(folder / "watched"), LARGE_BATCH)
        settings = Settings(TRIALS, training.base.train.epochs, cap_mb=CAP_MB, scheduler="none", searcher="random")
        with watching(folder / "watched") as seen_mb:
            started = time.monotonic()
            rows = _searched(objective, settings, folder / "search")
            seconds = time.monotonic() - started
        others = [row for row in rows if row.config["hog"] == NONE]
        say(f"{len(others)} of them alone")
        plain = [{key: value for key, value in row.config.items() if key != "hog"} for row in others]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            alone = pool.submit(run_in_a_loop, training, plain, folder / "alone").result()
    return {
        "trials": len(rows),
        "cap_mb": CAP_MB,
        "seconds": round(seconds, 1),
        "outcomes": {
            hog: dict(Counter(row.finish.outcome for row in rows if row.config["hog"] == hog and row.finish))
            for hog in (NONE, *HOGS)
        },
        "overshoot_mb": {hog: _overshoot(rows, hog, seen_mb[hog]) for hog in HOGS},
        "others_peak_mb": round(statistics.median(row.finish.peak_mb for row in others if row.finish)),
        "others_equal": sum(_epochs(row) == expected for row, expected in zip(others, alone, strict=True)),
        "largest_difference": max(_difference(_epochs(row), each) for row, each in zip(others, alone, strict=True)),
    }


def _searched(objective: WithHogs, settings: Settings, folder: Path) -> tuple[Row, ...]:
    whole = {**IDENTITY, "space": SPACE.to_json(), "mode": settings.mode, "max_epochs": settings.max_epochs}
    with Ledger(folder, whole) as ledger:  # a search with its proposals made: it begins with those
        ledger.raise_target(settings.trials)
        for config in configs():
            ledger.propose(config, "random")
    return run_search(
        objective,
        SPACE,
        configs()[0],
        folder,
        IDENTITY,
        settings,
        observer=Telling(),
        warm_up=partial(warm_up, objective.training.base),
    ).rows


def _overshoot(rows: tuple[Row, ...], hog: str, seen_mb: float) -> dict[str, int]:
    told = max(row.finish.peak_mb for row in rows if row.config["hog"] == hog and row.finish)
    return {"told": round(told - CAP_MB), "seen from outside": round(seen_mb - CAP_MB)}


def _epochs(row: Row) -> dict[int, dict[str, float]]:
    return {report.epoch: untimed(report.value, report.metrics) for report in row.reports}


def _difference(first: dict[int, dict[str, float]], second: dict[int, dict[str, float]]) -> float:
    if first.keys() != second.keys():
        return float("inf")
    return max(abs(first[epoch][name] - second[epoch][name]) for epoch in first for name in first[epoch])


def tables(record: Record) -> list[Table]:
    found_tables = []
    for part in record["settings"].values():
        found = part["figures"]
        rows = []
        for hog, outcomes in found["outcomes"].items():
            over = found["overshoot_mb"].get(hog)
            rows.append(
                [
                    hog,
                    ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()),
                    f"{over['told']:+d} MB" if over else "-",
                    f"{over['seen from outside']:+d} MB" if over else "-",
                ]
            )
        equal = (
            f"{found['others_equal']} of the {sum(found['outcomes'][NONE].values())} others have every figure "
            f"that they have alone, to the last bit (largest difference {found['largest_difference']:g}); they held "
            f"{found['others_peak_mb']} MB. The search took {found['seconds']:.0f} s."
        )
        columns = ["hog", "outcomes", "most over the cap, as told", "as seen by another process every 10 ms"]
        title = f"{found['trials']} trials of small under {found['cap_mb']} MB each, every third a hog"
        found_tables.append(Table(title, columns, rows, [equal, machine_in_words(part["machine"])]))
    return found_tables


BENCHMARK = Benchmark("search_caps", measure, tables, rounds=None)

if __name__ == "__main__":
    BENCHMARK.main()
