"""Thirty real trials under a cap that the default config exceeds: which fit, how, and what they lose by it.

    python benchmarks/search_fit.py [--data FOLDER]

`seqpipe tune --model small --trial-memory-mb 1000` on few images for two epochs. The trials that were fitted to the
cap are trained again without one, alone, and their figures compared.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import run_in_a_loop, training_trial
from measuring.workspaces import SEQPIPE, Place, with_data

from pipeline.config.resolution import resolve
from pipeline.search.space import default_space
from pipeline.search.store import SearchFolder
from pipeline.workspace.paths import Workspace
from tuning.ledger import Row, read

TRIALS, CAP_MB = 30, 1000
SETS = ("train.epochs=2", "data.fraction=0.05")
COMPARED = 6
"""So many of the fitted trials are trained again."""


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = with_data(Place(folder / "place", folder / "cache"), options.data)
        started = time.monotonic()
        rows = searched(place)
        seconds = time.monotonic() - started
        started_rows = [row for row in rows if row.starts]
        fitted = [row for row in started_rows if row.fitted and row.score is not None]
        say(f"{len(fitted)} fitted; {min(COMPARED, len(fitted))} of them again without a cap")
        config = resolve("small", sets=[*SETS, "compute.threads=1"])
        training = training_trial(config, place.root)
        configs = [dict(row.config) for row in fitted[:COMPARED]]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            alone = pool.submit(run_in_a_loop, training, configs, folder / "alone").result()
    return {
        "trials": len(rows),
        "cap_mb": CAP_MB,
        "seconds": round(seconds, 1),
        "outcomes": dict(Counter(row.outcome for row in rows)),
        "infeasible": sum(row.is_infeasible for row in rows),
        "at_the_cap_after_a_start": sum(row.outcome == "memory_cap" for row in started_rows),
        "hit_and_went_on": sum(row.halvings for row in rows),
        "fitted": dict(Counter(row.fitted for row in started_rows if row.fitted)),
        "forecast_over_peak": [
            round(row.forecast_mb / row.finish.peak_mb, 3) for row in started_rows if row.forecast_mb and row.finish
        ],
        "compared": [
            {
                "trial": row.number,
                "fitted": row.fitted,
                "loss": row.reports[0].metrics["train/loss"],
                "loss_without_cap": epochs[1]["train/loss"],
                "accuracy": row.reports[-1].value,
                "accuracy_without_cap": epochs[row.last_epoch]["value"],
            }
            for row, epochs in zip(fitted, alone, strict=False)
        ],
    }


def searched(place: Place) -> list[Row]:
    command = [SEQPIPE, "tune", "--model", "small", "--trials", str(TRIALS), "--trial-memory-mb", str(CAP_MB)]
    for text in SETS:
        command += ["--set", text]
    done = subprocess.run(
        [*command, "--json"], cwd=place.root, env=place.environ, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the search ended with {done.returncode}")
    config = resolve("small", sets=SETS)
    found = read(SearchFolder.of(Workspace(place.root), config, default_space("small")).path)
    assert found is not None
    assert json.loads(done.stdout)["ended"] == "finished"
    return found.rows


def tables(record: Record) -> list[Table]:
    found_tables = []
    for part in record["settings"].values():
        found = part["figures"]
        ratios = found["forecast_over_peak"]
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in found["outcomes"].items())
        differences = [abs(one["loss"] - one["loss_without_cap"]) for one in found["compared"]]
        points = [abs(one["accuracy"] - one["accuracy_without_cap"]) for one in found["compared"]]
        rows = [
            ["outcomes", f"{outcomes}; {found['seconds']:.0f} s"],
            ["infeasible, known before the start", str(found["infeasible"])],
            ["ended at the cap after a start", str(found["at_the_cap_after_a_start"])],
            ["hit the cap and went on with half", str(found["hit_and_went_on"])],
            ["how the others were fitted", ", ".join(f"{n} x {how}" for how, n in found["fitted"].items()) or "-"],
            ["forecast / peak", f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "-"],
            [
                f"{len(differences)} fitted trials without a cap",
                f"training loss of epoch 1 differs by at most {max(differences, default=0):.1g}, "
                f"validation accuracy by at most {100 * max(points, default=0):.2f} points",
            ],
        ]
        title = f"{found['trials']} trials of small under {found['cap_mb']} MB each"
        found_tables.append(Table(title, ["", "measured"], rows, [machine_in_words(part["machine"])]))
    return found_tables


BENCHMARK = Benchmark("search_fit", measure, tables, rounds=None)

if __name__ == "__main__":
    BENCHMARK.main()
