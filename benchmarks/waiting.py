"""OpenMP's threads sleeping while they wait (passive, as seqpipe sets it) or spinning (active): steps of small.

    python benchmarks/waiting.py [--rounds N]

Alone, and beside one other torch program with two busy threads. It is read when torch is loaded, so each turn is a
process of its own, which makes a few steps; the turns are interleaved.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import TWO_THREADS, Setting
from measuring.timing import Times, say

STEPS = 5
POLICIES = ("PASSIVE", "ACTIVE")
COMPANY = ("alone", "beside a busy program")
BUSY = "import torch; torch.set_num_threads(2); a = torch.randn(1024, 1024)\nwhile True: a @ a"


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    turns = -(-options.rounds // STEPS)
    seconds: dict[str, list[float]] = {f"{policy}, {company}": [] for company in COMPANY for policy in POLICIES}
    for turn, company, policy in itertools.product(range(turns), COMPANY, POLICIES):
        with busy_program(company != "alone"):
            done = subprocess.run(
                [sys.executable, __file__, "--steps"],
                env=os.environ | {"OMP_WAIT_POLICY": policy},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        seconds[f"{policy}, {company}"] += [float(word) for word in done.stdout.split()]
        say(f"turn {turn + 1}, {policy}, {company}")
    return {
        name: Times(tuple(taken)).to_json() | {"largest_ms": 1000 * max(taken)} for name, taken in seconds.items()
    }


@contextmanager
def busy_program(wanted: bool) -> Iterator[None]:
    """Two threads of products, as another training would have them, started a moment before."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if wanted else None
    try:
        if process:
            time.sleep(3)
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def print_step_times() -> None:
    """What each turn's process does."""
    from measuring.ours import numerics, set_up
    from measuring.timing import interleaved
    from measuring.training import batches_of, first_batch, made_up_split, step, training_of

    from pipeline.config.resolution import resolve
    from pipeline.training.models import build_model

    set_up(TWO_THREADS)
    config = resolve("small")
    chosen = numerics("auto", TWO_THREADS)
    batches = batches_of(made_up_split(1000), config)
    with training_of(build_model(config, 4), config, chosen, batches) as training:
        times = interleaved({"step": step(training, chosen, first_batch(batches))}, STEPS)
    print(*times["step"].seconds)


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        for name, found in part["figures"].items():
            keys = ("median_ms", "quartile_1_ms", "quartile_3_ms", "largest_ms")
            rows.append([name, *(f"{found[key]:.0f}" for key in keys)])
        notes.append(machine_in_words(part["machine"]))
    columns = ["OMP_WAIT_POLICY", "a step, ms (median)", "first quartile", "third quartile", "largest"]
    return [Table("Threads that sleep or spin while they wait: steps of small, 2 threads", columns, rows, notes)]


BENCHMARK = Benchmark("waiting", measure, tables, settings=(TWO_THREADS,))

if __name__ == "__main__":
    if sys.argv[1:] == ["--steps"]:
        print_step_times()
    else:
        BENCHMARK.main()
