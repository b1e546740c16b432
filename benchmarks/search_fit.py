"""Thirty real trials under a cap that the default config exceeds: which fit, how, and what they lose by it.

    python benchmarks/search_fit.py [--data FOLDER]

`seqpipe tune --model small --trial-memory-mb 1000` in fp32, on few images for two epochs. The trials that were fitted
to the cap are trained again without one, alone, and their figures compared.

Then `seqpipe tune --model medium`, two trials at once, in a control group of 8 GB (root only), twice: undisturbed,
and beside a program that takes memory until 300 MB are free, holds it for two minutes, and goes.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
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
from tuning.room import reserve_mb

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from _pytest.outcomes import Skipped
from control_groups import Group, control_group

TRIALS, CAP_MB = 30, 1000
SETS = ("train.epochs=2", "data.fraction=0.05", "compute.precision=fp32")
MACHINE_MB = 8000
LEFT_MB = 300
TAKE_AFTER_S, HOLD_S = 30.0, 120.0
ROOM_SETS = ("--set", "train.epochs=3", "--set", "data.fraction=0.05")
_READER = """
import time
from tuning.machine import this_machine
while True:
    print(this_machine().available_bytes / 1e6, flush=True)
    time.sleep(0.25)
"""
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
        fitted = [row for row in started_rows if row.fitted and row.reports]
        say(f"{len(fitted)} fitted; {min(COMPARED, len(fitted))} of them again without a cap")
        config = resolve("small", sets=[*SETS, "compute.threads=1"])
        training = training_trial(config, place.root)
        configs = [dict(row.config) for row in fitted[:COMPARED]]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            alone = pool.submit(run_in_a_loop, training, configs, folder / "alone").result()
    return {
        "room": room(options.data),
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


def room(data: Path | None) -> dict[str, Any] | None:
    """The searches in a control group; None where none can be made."""
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(control_group(MACHINE_MB, 2.0))
        except Skipped as why:
            say(str(why))
            return None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found, values = {}, []
        for name in ("undisturbed", "disturbed"):
            place = with_data(Place(folder / name, folder / "cache"), data)
            figures, rows = _in_group(group, place, disturbed=name == "disturbed")
            say(f"{name}: {figures}")
            found[name] = figures
            values.append([[report.value for report in row.reports] for row in rows])
        return found | {"same_figures": values[0] == values[1]}


def _in_group(group: Group, place: Place, *, disturbed: bool) -> tuple[dict[str, Any], list[Row]]:
    words = ["tune", "--model", "medium", "--trials", "4", "--concurrency", "2", "--scheduler", "none", *ROOM_SETS]
    with (
        available(group) as readings,
        (place.root / "log").open("w") as log,
        subprocess.Popen(
            [SEQPIPE, *words], cwd=place.root, env=place.environ, stdout=log, stderr=log, preexec_fn=group.enter
        ) as search,
    ):
        started = time.monotonic()
        if disturbed:
            time.sleep(TAKE_AFTER_S)
            with group.with_little_left(LEFT_MB):
                time.sleep(HOLD_S)
        code = search.wait()
        seconds = time.monotonic() - started
    said = (place.root / "log").read_text()
    found = read(next((place.root / ".seqpipe" / "searches").iterdir()))
    assert found is not None
    quarter_mb = 0.25 * reserve_mb(MACHINE_MB)
    return {
        "exit_code": code,
        "seconds": round(seconds, 1),
        "outcomes": dict(Counter(row.outcome for row in found.rows)),
        "least_available_mb": round(min(mb for _, mb in readings)),
        "longest_under_a_quarter_s": round(_longest(readings, quarter_mb), 1),
        "left_for_room": said.count("which is short of memory"),
        "lost": said.count("lost its process"),
    }, found.rows


@contextmanager
def available(group: Group) -> Iterator[list[tuple[float, float]]]:
    """Within this, the group's available memory by the second, four times a second."""
    readings: list[tuple[float, float]] = []
    with subprocess.Popen(
        [sys.executable, "-c", _READER], stdout=subprocess.PIPE, text=True, preexec_fn=group.enter
    ) as reader:
        assert reader.stdout is not None

        def follow() -> None:
            readings.extend((time.monotonic(), float(line)) for line in reader.stdout or ())

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield readings
        finally:
            reader.kill()
            thread.join()


def _longest(readings: list[tuple[float, float]], below_mb: float) -> float:
    """The longest time for which memory stayed below that."""
    longest, since = 0.0, None
    for at, mb in readings:
        since = None if mb >= below_mb else since or at
        longest = max(longest, at - since if since else 0.0)
    return longest


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
        if (shrinking := found["room"]) is not None:
            columns = ["", "outcomes", "least available", "longest under a quarter of the reserve", "left", "time"]
            cells = [
                [
                    name,
                    ", ".join(f"{number} {outcome}" for outcome, number in one["outcomes"].items()),
                    f"{one['least_available_mb']} MB",
                    f"{one['longest_under_a_quarter_s']} s",
                    f"{one['left_for_room']} in order, {one['lost']} lost",
                    f"{one['seconds']:.0f} s",
                ]
                for name, one in ((name, shrinking[name]) for name in ("undisturbed", "disturbed"))
            ]
            same = "the same" if shrinking["same_figures"] else "not the same"
            title = "Four trials of medium, two at once, in a control group of 8 GB"
            found_tables.append(Table(title, columns, cells, [f"The figures of all epochs are {same} in both."]))
    return found_tables


BENCHMARK = Benchmark("search_fit", measure, tables, rounds=None)

if __name__ == "__main__":
    BENCHMARK.main()
