"""Loss curves of small in bf16 and fp32, real data, same seeds, against the noise between seeds. Minutes long.

python benchmarks/precision.py [--data FOLDER] [--epochs N] [--seeds N] [seqpipe run's own flags]
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.curves import trained
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.workspaces import new_place, prepared

PRECISIONS = ("fp32", "bf16")
CURVES = ("train/loss", "validation/loss", "validation/accuracy")


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    runs: dict[str, list[dict[str, list[float]]]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = prepared(folder, options.data, options.flags)
        for seed in range(options.seeds):
            for precision in PRECISIONS:
                place = new_place(folder, template, f"{seed}-{precision}")
                settings = (f"compute.precision={precision}", f"train.epochs={options.epochs}")
                words = [word for setting in settings for word in ("--set", setting)]
                rows = trained(place, ["--model", "small", "--seed", str(seed), *words, *options.flags])
                runs[precision].append({curve: [row[curve] for row in rows] for curve in CURVES})
                shutil.rmtree(place.root)
                say(f"seed {seed}, {precision}: loss {runs[precision][-1]['validation/loss'][-1]:.4f}")
    return {"epochs": options.epochs, "seeds": options.seeds, "runs": runs}


def tables(record: Record) -> list[Table]:
    return [_table(part, curve) for part in record["settings"].values() for curve in CURVES]


def _table(part: dict[str, Any], curve: str) -> Table:
    found = part["figures"]
    rows = []
    for epoch in range(found["epochs"]):
        wide, narrow = ([run[curve][epoch] for run in found["runs"][precision]] for precision in PRECISIONS)
        differences = [b - a for a, b in zip(wide, narrow, strict=True)]
        spread = f"{statistics.stdev(wide):.4f}" if len(wide) > 1 else "-"
        means = [f"{statistics.mean(values):.4f}" for values in (wide, narrow)]
        rows.append([str(epoch + 1), *means, f"{statistics.mean(differences):+.4f}", spread])
    columns = ["epoch", "fp32", "bf16", "bf16 - fp32, same seeds", "deviation between fp32's seeds"]
    title = f"{curve} of small, mean of {found['seeds']} seeds"
    return Table(title, columns, rows, [machine_in_words(part["machine"])])


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=4, help="of every training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings in each precision")


BENCHMARK = Benchmark("precision", measure, tables, rounds=None, add_arguments=_arguments, takes_flags=True)

if __name__ == "__main__":
    BENCHMARK.main()
