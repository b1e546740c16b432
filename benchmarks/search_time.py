"""What a search adds to its trials: equal trials of a minute, against a plain loop over them at the same concurrency.

    python benchmarks/search_time.py [--data FOLDER] [--trials N] [--fraction F]

The loop: as many processes as the search has trials at once, each of which imports once and trains its share of the
same configurations one after the other; no guard, no memory cap, no MLflow. The loop is run before and after the
search. The second table is the start: from the command to the end of a first epoch of three steps.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import searches
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import loop_s, training_trial
from measuring.workspaces import Place, new_place, prepared, with_data

from pipeline.config.resolution import resolve

CONCURRENCY = 2
EPOCHS = 2
STARTS = 5


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = with_data(Place(folder / "place", folder / "cache"), options.data)
        start_s = _starts(folder, options.data, place.cache)
        sets = (f"data.fraction={options.fraction}", f"train.epochs={EPOCHS}", "compute.threads=1")
        command = searches.words(options.trials, folder / "space.yaml", sets)
        place.run("run", "prepare", "--set", sets[0])  # not part of the time of either side
        training = training_trial(resolve("small", sets=sets), place.root)
        plain = [{"train.learning_rate": 1e-3 * (1 + number / 10)} for number in range(options.trials)]
        loops_s = [loop_s(training, plain, CONCURRENCY, folder / "before")]
        started = time.monotonic()
        place.run(*command, "--concurrency", str(CONCURRENCY))
        search_s = time.monotonic() - started
        say(f"search {search_s:.1f} s; trials of {statistics.mean(searches.durations_s(place)):.1f} s")
        loops_s.append(loop_s(training, searches.configs(place), CONCURRENCY, folder / "after"))
        return {
            "trials": options.trials,
            "concurrency": CONCURRENCY,
            "trial_s": [round(each, 1) for each in searches.durations_s(place)],
            "search_s": round(search_s, 1),
            "loops_s": [round(each, 1) for each in loops_s],
            "ratio": round(search_s / statistics.mean(loops_s), 3),
            "first_start_ever_s": round(start_s[0], 1),
            "start_s": [round(each, 1) for each in start_s[1:]],
        }


def _starts(folder: Path, data: Path | None, cache: Path) -> list[float]:
    """Of searches whose data are prepared, each in a workspace of its own; only the first builds the kernel."""
    sets = ("data.fraction=0.02", "train.epochs=3", "compute.threads=1")
    template = prepared(folder, data, ("--set", sets[0]))
    found = []
    for number in range(1 + STARTS):
        place = replace(new_place(folder, template, f"start-{number}"), cache=cache)
        command = searches.words(2, folder / "space.yaml", sets)
        found.append(searches.seconds_until_first_report(place, [*command, "--concurrency", str(CONCURRENCY)]))
        say(f"first epoch after {found[-1]:.1f} s")
    return found


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        rows.append(
            [
                f"{found['trials']} of {statistics.mean(found['trial_s']):.0f} s, {found['concurrency']} at once",
                f"{found['search_s']:.0f} s",
                " and ".join(f"{each:.0f} s" for each in found["loops_s"]),
                f"{found['ratio']:.2f}",
                f"{found['first_start_ever_s']:.1f} s / {statistics.median(found['start_s']):.1f} s",
            ]
        )
        notes.append(machine_in_words(part["machine"]))
    columns = [
        "trials", "seqpipe tune, the whole command", "a plain loop, before and after", "ratio",
        f"from the command to the end of a first short epoch, first run ever / median of {STARTS} more",
    ]  # fmt: skip
    return [Table("What a search adds to its trials", columns, rows, notes)]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--fraction", type=float, default=0.4, help="of the data; sets how long a trial takes")


BENCHMARK = Benchmark("search_time", measure, tables, rounds=None, add_arguments=_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
