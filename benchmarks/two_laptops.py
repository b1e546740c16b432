"""A search on two laptops without a shared disk, each with one core, against one: network namespaces, as root.

    python benchmarks/two_laptops.py [--data FOLDER] [--trials N] [--fraction F] [--only PART]

Trials an hour of `seqpipe tune` on laptop A alone and with laptop B, beside a plain loop over the same trainings in
one process and in two; what is held beside the trials; what was sent to B; how soon B trains after `cluster join`;
and a search of forty short trials to which something happens every twenty seconds for ten minutes. With `--only` the
other parts stay as they were measured last.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import laptops, records, searches, torture
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import loop_s, training_trial
from measuring.workspaces import Place, prepared, with_data

from pipeline.config.resolution import resolve

CAP_MB = 1400
PARTS = ("rate", "join", "torture")
ORDER_S = 900.0


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    kept = records.read("two_laptops")
    found: dict[str, Any] = dict((kept and records.figures(kept, setting.name)) or {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "rate" in options.only:
            found["rate"] = _rate(folder, options)
        if "join" in options.only:
            found["join"] = _join(folder, options)
        if "torture" in options.only:
            found["torture"] = _torture(folder, options)
    return found


def _rate(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One laptop, then two; and the plain loops over the configurations that they tried."""
    sets = (f"data.fraction={options.fraction}", "train.epochs=2", "compute.threads=1")
    plain = with_data(Place(folder / "plain", folder / "plain-cache"), options.data)
    training = training_trial(resolve("small", sets=sets), plain.root)
    template = prepared(folder, options.data, ("--set", sets[0]))
    found: dict[str, Any] = {"trials": options.trials}
    for count in (1, 2):
        with laptops.separate(folder / f"laptops-{count}", wired=True) as cluster:
            _furnish(cluster, template)
            if count == 2:
                cluster.up()
                cluster.join(cluster.b)
            command = searches.words(options.trials, cluster.a.work / "space.yaml", sets)
            command[command.index("--space") + 1] = "space.yaml"
            received = cluster.b.received_bytes()
            with laptops.beside_trials(*cluster.laptops.all) as beside_mb:
                where = ["--local"] if count == 1 else []
                done = _whole(cluster, command, "--trial-memory-mb", str(CAP_MB), *where)
            ends = cluster.of("finished")
            assert all(each["outcome"] == "completed" for each in ends), ends
            configs = [each["config"] for each in cluster.of("proposed")]
            found[str(count)] = {
                "seconds": round(done, 1),
                "trials_per_hour": round(3600 * options.trials / done, 1),
                "trial_s": [round(each["duration_s"], 1) for each in ends],
                "nodes": [each["node"] for each in ends],
                "beside_mb": dict(beside_mb),
                "sent_to_b_mb": round((cluster.b.received_bytes() - received) / 1e6, 1),
                "checkpoint_mb": round(_checkpoint_mb(cluster), 1),
                "loop_s": round(loop_s(training, configs, count, folder / f"loop-{count}"), 1),
            }
            say(f"{count} laptops: {found[str(count)]}")
    found["ratio"] = round(found["2"]["trials_per_hour"] / found["1"]["trials_per_hour"], 3)
    found["loops_ratio"] = round(found["1"]["loop_s"] / found["2"]["loop_s"], 3)
    found["prepared_mb"] = round(sum(path.stat().st_size for path in template.rglob("*.npy")) / 1e6, 1)
    return found


def _join(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole training set of the default run goes to a laptop that has never seen it, while a search runs."""
    sets = ("train.epochs=2", "compute.threads=1")
    (folder / "join").mkdir()
    template = prepared(folder / "join", options.data)
    found = []
    for number in range(options.joins):
        with laptops.separate(folder / f"join-{number}", wired=True) as cluster:
            _furnish(cluster, template)
            cluster.up()
            command = searches.words(8, cluster.a.work / "space.yaml", sets)
            command[command.index("--space") + 1] = "space.yaml"
            driver = cluster.a.start(laptops.SEQPIPE, *command, "--trial-memory-mb", str(CAP_MB))
            driver.wait_for(lambda held=cluster: held.of("started"), 90)
            began, received = time.time(), cluster.b.received_bytes()
            cluster.begin_join(cluster.b, **laptops.tells_first_step(cluster.b))
            driver.wait_for(lambda held=cluster: laptops.first_step_at(held.b), 120)
            stepped = laptops.first_step_at(cluster.b)
            assert stepped is not None
            started = cluster.of("started", node=cluster.b.name)[0]["time_ms"] / 1000
            found.append(
                {
                    "first_step_s": round(stepped - began, 1),
                    "started_s": round(started - began, 1),
                    "sent_to_b_mb": round((cluster.b.received_bytes() - received) / 1e6, 1),
                }
            )
            say(f"join: {found[-1]}")
            driver.leave()
    data_mb = round(sum(path.stat().st_size for path in template.rglob("*.npy")) / 1e6, 1)
    return {"joins": found, "prepared_mb": data_mb}


def _torture(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    plain = torture.undisturbed(folder, options.short_trials, options.short_epochs)
    say(f"undisturbed: {plain['seconds']} s")
    disturbed = torture.tortured(folder, options.short_trials, options.short_epochs, options.torture_s, options.seed)
    compared = torture.compared(disturbed, plain)
    for one in (plain, disturbed):
        del one["results"], one["ends"]
    return {"undisturbed": plain, "disturbed": disturbed, "compared": compared}


def _furnish(cluster: laptops.Cluster, template: Path) -> None:
    """Laptop A has the prepared data, and an MLflow store of its own."""
    shutil.copytree(template, cluster.a.work, dirs_exist_ok=True)
    cluster.a.environ.pop("MLFLOW_TRACKING_URI", None)


def _whole(cluster: laptops.Cluster, command: list[str], *more: str) -> float:
    """Seconds that a whole search takes."""
    done = cluster.a.run(laptops.SEQPIPE, *command, *more, timeout_s=ORDER_S)
    if done.code:
        sys.exit(f"seqpipe {' '.join(command)} ended with {done.code}:\n{done.err}")
    return done.seconds


def _checkpoint_mb(cluster: laptops.Cluster) -> float:
    """Of what a trial keeps: that of the best one stays."""
    kept = (cluster.a.work / ".seqpipe" / "searches").rglob("checkpoints/row-*/0*/**/*")
    sizes = [path.stat().st_size / 1e6 for path in kept if path.is_file()]
    return sum(sizes)


def tables(record: Record) -> list[Table]:
    found = [(part["figures"], machine_in_words(part["machine"])) for part in record["settings"].values()]
    notes = [machine for _, machine in found]
    made = []
    if rates := [figures["rate"] for figures, _ in found if "rate" in figures]:
        made.append(Table("Trials an hour on one and two laptops", _RATE, _rate_rows(rates), notes))
    if joins := [figures["join"] for figures, _ in found if "join" in figures]:
        made.append(Table("From `cluster join` to the first step", _JOIN, [_join_row(each) for each in joins], notes))
    if tortures := [figures["torture"] for figures, _ in found if "torture" in figures]:
        made.append(Table("Something happens every 20 s", _TORTURE, [_torture_row(each) for each in tortures], notes))
    return made


_RATE = [
    "laptops of one core", "trials", "the whole command", "trials an hour", "against one",
    "a plain loop in as many processes", "against one", "beside the trials, A / B", "sent to B",
]  # fmt: skip
_JOIN = ["joins", "until its first trial starts", "until its first step", "sent to B", "prepared arrays"]
_TORTURE = [
    "trials",
    "seconds, undisturbed",
    "what happened",
    "starts",
    "ended once",
    "lost, doubled",
    "as undisturbed",
]


def _rate_rows(rates: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for found in rates:
        for count in ("1", "2"):
            one = found[count]
            both = count == "2"
            held = " / ".join(f"{each:.0f} MB" for each in list(one["beside_mb"].values())[: int(count)])
            rows.append(
                [
                    count,
                    f"{found['trials']} of {statistics.mean(one['trial_s']):.0f} s",
                    f"{one['seconds']:.0f} s",
                    f"{one['trials_per_hour']:.0f}",
                    f"{found['ratio']:.2f}" if both else "1",
                    f"{one['loop_s']:.0f} s",
                    f"{found['loops_ratio']:.2f}" if both else "1",
                    held,
                    f"{one['sent_to_b_mb']:.0f} MB of {found['prepared_mb']:.0f} MB data" if both else "",
                ]
            )
    return rows


def _join_row(found: dict[str, Any]) -> list[str]:
    joins = found["joins"]
    started, stepped = ([each[name] for each in joins] for name in ("started_s", "first_step_s"))
    return [
        str(len(joins)),
        f"{statistics.median(started):.1f} s",
        f"{statistics.median(stepped):.1f} s (at most {max(stepped):.1f} s)",
        f"{statistics.median([each['sent_to_b_mb'] for each in joins]):.0f} MB",
        f"{found['prepared_mb']:.0f} MB",
    ]


def _torture_row(found: dict[str, Any]) -> list[str]:
    compared, disturbed = found["compared"], found["disturbed"]
    return [
        str(compared["trials"]),
        f"{disturbed['seconds']} s, {found['undisturbed']['seconds']} s",
        ", ".join(f"{name.replace('_', ' ')} {times}x" for name, times in sorted(disturbed["happened"].items())),
        str(disturbed["starts"]),
        str(compared["ended_once"]),
        f"{len(compared['lost'])}, {len(compared['doubled'])}",
        f"{compared['equal']} to the last bit; {'the same' if compared['same_best'] else 'ANOTHER'} best",
    ]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--fraction", type=float, default=0.2, help="of the data; sets how long a trial takes")
    parser.add_argument("--joins", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--short-trials", type=int, default=40, help="of the search to which things happen")
    parser.add_argument("--short-epochs", type=int, default=25)
    parser.add_argument("--torture-s", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0, help="of what happens")


BENCHMARK = Benchmark("two_laptops", measure, tables, rounds=None, add_arguments=_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
