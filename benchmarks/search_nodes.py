"""Trials an hour on two Ray nodes of one core each, against one: `seqpipe tune --address` on real data.

    python benchmarks/search_nodes.py [--data FOLDER] [--trials N] [--fraction F]

What two cores of this machine give at best is measured beside it: the same trainings in a plain loop, by one process
and by two at once, without Ray, a guard or MLflow.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import searches
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.raylets import raylets
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import loop_s, training_trial
from measuring.workspaces import Place, new_place, prepared, with_data

from pipeline.config.resolution import resolve

NODES = (1, 2)
CAP_MB = 1400
NODE_MB = 1700


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    found = {}
    sets = (f"data.fraction={options.fraction}", "train.epochs=2", "compute.threads=1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = with_data(Place(folder / "plain", folder / "plain-cache"), options.data)
        training = training_trial(resolve("small", sets=sets), plain.root)
        template = prepared(folder, options.data, ("--set", sets[0]))
        for count in NODES:
            place = new_place(folder, template, f"nodes-{count}")
            command = searches.words(options.trials, folder / "space.yaml", sets)
            with raylets(count, NODE_MB) as (address, environment):
                place = place.with_environment(environment)
                started = time.monotonic()
                place.run(*command, "--address", address, "--trial-memory-mb", str(CAP_MB))
                seconds = time.monotonic() - started
            found[str(count)] = {
                "seconds": round(seconds, 1),
                "trials_per_hour": round(3600 * options.trials / seconds, 1),
                "trial_s": [round(each, 1) for each in searches.durations_s(place)],
                "loop_s": round(loop_s(training, searches.configs(place), count, folder / f"loop-{count}"), 1),
            }
            say(f"{count} nodes: {seconds:.1f} s")
    rates = [found[str(count)]["trials_per_hour"] for count in NODES]
    loops = [found[str(count)]["loop_s"] for count in NODES]
    return {
        "trials": options.trials,
        "nodes": found,
        "ratio": round(rates[1] / rates[0], 3),
        "loops_ratio": round(loops[0] / loops[1], 3),
    }


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        for count, one in found["nodes"].items():
            ratio, loops_ratio = ("1", "1")
            if count == "2":
                ratio, loops_ratio = f"{found['ratio']:.2f}", f"{found['loops_ratio']:.2f}"
            trials = f"{found['trials']} of {statistics.mean(one['trial_s']):.0f} s"
            cells = [count, trials, f"{one['seconds']:.0f} s"]
            rows.append([*cells, f"{one['trials_per_hour']:.0f}", ratio, f"{one['loop_s']:.0f} s", loops_ratio])
        notes.append(machine_in_words(part["machine"]))
    columns = [
        "nodes of one core", "trials", "the whole command", "trials an hour", "against one",
        "a plain loop in as many processes", "against one",
    ]  # fmt: skip
    return [Table("Trials an hour on one and two Ray nodes", columns, rows, notes)]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--fraction", type=float, default=0.2, help="of the data; sets how long a trial takes")


BENCHMARK = Benchmark("search_nodes", measure, tables, rounds=None, add_arguments=_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
