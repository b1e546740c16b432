"""`seqpipe cluster` and `seqpipe tune` on laptops of namespaces, and what the searches' ledgers on A say."""

import atexit
import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from laptop import HOME, Laptop
from laptop_commands import Command, Screen
from product import SEQPIPE, Done, tiny
from two_laptops import Laptops, laptops

FIGURES_VARIABLE = "SEQPIPE_FAULT_FIGURES"
"""Names a JSON file that gets the figures of the tests: how long until work went on, what was lost."""
LONG_VARIABLE = "SEQPIPE_LONG_FAULTS"
"""Set: frozen for ten minutes and cut for three, as the issue has it; otherwise as long as Ray needs to notice."""
SPACE = "train.learning_rate: {uniform: [0.001, 0.01]}\n"
EPOCHS = 12
CAP_MB = "700"
"""Of a trial: by itself one of a single core takes all that its node gives."""
UP_S, JOIN_S, NODES_S = 120.0, 120.0, 120.0
Event = dict[str, Any]


def is_long() -> bool:
    return bool(os.environ.get(LONG_VARIABLE))


def record(test: str, **figures: object) -> None:
    """Print a test's figures, and keep them where the variable says."""
    rounded = {name: round(each, 1) if isinstance(each, float) else each for name, each in figures.items()}
    print(test, rounded)
    if os.environ.get(FIGURES_VARIABLE):
        path = Path(os.environ[FIGURES_VARIABLE])
        kept = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**kept, test: {**kept.get(test, {}), **rounded}}, indent=1) + "\n")


def search(trials: int, epochs: int = EPOCHS, **values: object) -> list[str]:
    """A search of real trainings of made-up images, `epochs` of about half a second each."""
    chosen = {"train__epochs": epochs, "train__batch_size": 4, "data__fraction": 0.5, **values}
    words = [SEQPIPE, "tune", *tiny("vanilla", **chosen), "--space", "space.yaml"]
    return [*words, "--trials", str(trials), "--scheduler", "none", "--trial-memory-mb", CAP_MB]


class Cluster:
    """Laptop A has the head and the searches; the others join it."""

    def __init__(self, made: Laptops) -> None:
        self.laptops, self.a, self.b = made, made.a, made.b
        self.head: Command | None = None
        self.members: dict[str, Command] = {}
        (self.a.work / "space.yaml").write_text(SPACE)

    # -- commands

    def up(self, *words: str, **environ: str | None) -> float:
        """Seconds until laptop A has a head that takes others in."""
        began = time.monotonic()
        self.head = self.a.start(SEQPIPE, "cluster", "up", *words, **environ)
        self.head.wait_until_said("to end it", UP_S)
        return time.monotonic() - began

    @property
    def code_file(self) -> Path:
        return self.a.work / ".seqpipe" / "cluster" / "code"

    @property
    def code(self) -> str:
        """What a person copies from A's screen."""
        return self.code_file.read_text().strip()

    def begin_join(self, laptop: Laptop, *words: str, address: str = "", **environ: str | None) -> Command:
        """`cluster join` with the code in the environment."""
        given = {"SEQPIPE_JOIN_CODE": self.code, **environ}
        member = laptop.start(SEQPIPE, "cluster", "join", address or self.a.address, *words, **given)
        self.members[laptop.name] = member
        return member

    def join(self, laptop: Laptop, *words: str, **environ: str | None) -> float:
        """Seconds until that laptop is a node that trials may run on."""
        began = time.monotonic()
        self.begin_join(laptop, *words, **environ).wait_for(lambda: self.joins(laptop) > 0, JOIN_S)
        return time.monotonic() - began

    def tune(self, trials: int, *words: str, **values: Any) -> Command:
        """Begin a search on A."""
        return self.a.start(*search(trials, **values), *words)

    def tune_in_terminal(self, trials: int, *words: str, **values: Any) -> Screen:
        """Begin a search on A, in a window."""
        return self.a.terminal(*search(trials, **values), *words)

    def run(self, *words: str, laptop: Laptop | None = None, timeout_s: float = 60, **environ: str | None) -> Done:
        """A command of `seqpipe cluster` to its end."""
        return (laptop or self.a).run(SEQPIPE, "cluster", *words, timeout_s=timeout_s, **environ)

    # -- what is so

    def status(self) -> dict[str, Any]:
        """What `cluster status --json` says; empty where it does not."""
        done = self.run("status", "--json")
        return dict(json.loads(done.out)) if done.code == 0 else {}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes by their names."""
        return {node["name"]: node for node in self.status().get("nodes", ())}

    def joins(self, laptop: Laptop) -> int:
        """How often the member there has said that it is in the cluster, the first time or again."""
        member = self.members[laptop.name]
        return (member.out + member.err).count("in the cluster")

    def rejoins(self, laptop: Laptop, joins: int, timeout_s: float = NODES_S) -> float:
        """Seconds until it is in the cluster once more than so many times."""
        return self.members[laptop.name].wait_for(lambda: self.joins(laptop) > joins, timeout_s)

    def is_ready(self, name: str) -> bool:
        return self.nodes().get(name, {}).get("state") == "ready"

    def show(self) -> None:
        """Print what the commands said last, for who looks for a fault."""
        for laptop in self.laptops.all:
            for command in laptop.commands:
                if "cluster status" not in (words := " ".join(command.words)):
                    print(f"-- {laptop.name}: {words[-120:]}\n{command.out[-1500:]}\n{command.err[-3000:]}")

    @staticmethod
    def trials_on(laptop: Laptop) -> list[int]:
        """The guarded processes of trials that run there."""
        found = []
        for process in laptop.processes():
            with contextlib.suppress(psutil.Error):
                if "tuning.capped.watchdog" in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def events(self) -> list[Event]:
        """The whole lines of the one search's ledger."""
        found = list((self.a.work / ".seqpipe" / "searches").glob("*/ledger.jsonl"))
        lines = found[0].read_bytes().splitlines(keepends=True) if found else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def of(self, event: str, **also: object) -> list[Event]:
        """The ledger's events of a kind, in order."""
        return [
            each
            for each in self.events()
            if each["event"] == event and all(each.get(name) == value for name, value in also.items())
        ]

    def row_on(self, laptop: Laptop) -> int | None:
        """The row that runs there now, as the ledger has it, once it has reported twice since it began."""
        node: dict[int, str] = {}
        told: dict[int, int] = {}
        for each in self.events():
            match each["event"]:
                case "started":
                    node[each["row"]], told[each["row"]] = each["node"], 0
                case "report":
                    told[each["row"]] = told.get(each["row"], 0) + 1
                case "finished":
                    node.pop(each["row"], None)
        return next((row for row, name in node.items() if name == laptop.name and told[row] >= 2), None)

    def wait_for_row_on(self, laptop: Laptop, driver: Command, timeout_s: float = 90) -> int:
        """The row that is in the middle of its epochs there."""
        driver.wait_for(lambda: self.row_on(laptop) is not None, timeout_s, 0.1)
        row = self.row_on(laptop)
        assert row is not None
        return row

    def results(self) -> dict[int, dict[str, Any]]:
        """Each row's configuration, and each epoch's figures, timings aside; an epoch told twice has the same."""
        rows: dict[int, dict[str, Any]] = {}
        for each in self.events():
            if each["event"] == "proposed":
                rows[each["row"]] = {"config": each["config"]}
            elif each["event"] == "report":
                metrics = {name: value for name, value in each["metrics"].items() if name != "images_per_second"}
                told = {"value": each["value"], **metrics}
                assert rows[each["row"]].setdefault(each["epoch"], told) == told, each
        return rows

    def check_sound(self) -> None:
        """No configuration is there twice, and nothing finished ended or was started again."""
        rows = self.results()
        assert len({json.dumps(row["config"], sort_keys=True) for row in rows.values()}) == len(rows)
        ended = set()
        for each in self.events():
            if each["event"] in ("finished", "started"):
                assert each["row"] not in ended, f"row {each['row']} was finished before {each}"
            if each["event"] == "finished":
                assert each["outcome"] == "completed", each
                ended.add(each["row"])

    def check_whole(self, trials: int) -> None:
        """The same, and every trial ended with all its epochs."""
        self.check_sound()
        rows = self.results()
        assert len(rows) == len(self.of("finished")) == trials
        epochs = {len(row) - 1 for row in rows.values()}
        assert len(epochs) == 1, f"all trials are of as many epochs: {epochs}"


def repeated_epochs(events: list[Event], row: int) -> int:
    """How many epochs of a row were trained more than once, as far as they were reported."""
    told = [each["epoch"] for each in events if each["event"] == "report" and each["row"] == row]
    return len(told) - len(set(told))


def lost_s(events: list[Event], row: int) -> float:
    """Seconds of a row's work that were done again: what it reported after the checkpoint that it went on from."""
    lost = 0.0
    told: dict[int, float] = {}
    for each in events:
        if each["event"] != "report" or each["row"] != row:
            continue
        if told and each["epoch"] <= max(told):
            lost += max(told.values()) - told.get(each["epoch"] - 1, min(told.values()))
            told = {epoch: when for epoch, when in told.items() if epoch < each["epoch"]}
        told[each["epoch"]] = each["time_ms"] / 1000
    return lost


def quiet_within(laptop: Laptop, timeout_s: float, but: Callable[[str], bool] = lambda line: False) -> float:
    """Seconds until no process, port or folder of Ray's is left on a laptop, those with such a command line aside."""
    began = time.monotonic()

    def left() -> list[str]:
        lines = [line for line in laptop.lines() if not but(line)]
        folders = [str(path) for path in laptop.path("/tmp").glob("*ray*")]
        return [*lines, *laptop.listening(), *folders]

    while (found := left()) and time.monotonic() - began < timeout_s:
        time.sleep(0.1)
    assert not found, f"left on {laptop.name}: {found}"
    return time.monotonic() - began


_KEPT = ("lstm-*", "speed*.json", "memory-*.json")
_BUILD = "from sequencer_models.capabilities import this_machine; this_machine().native_kernel"


def keep_what_was_measured(laptop: Laptop) -> None:
    """Keep the kernel and the measured choices of a laptop for those to come, which are the same machine."""
    _copy(laptop.path(f"{HOME}/.cache/seqpipe"), _kept())


def give_what_was_measured(laptop: Laptop) -> None:
    """The kernel and the measured choices, so that no test waits for a compiler."""
    if not any(_kept().glob("lstm-*")):
        laptop.run(sys.executable, "-c", _BUILD, timeout_s=120)
        keep_what_was_measured(laptop)
    _copy(_kept(), laptop.path(f"{HOME}/.cache/seqpipe"))


@functools.cache
def _kept() -> Path:
    folder = tempfile.mkdtemp(prefix="laptops-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for pattern in _KEPT:
        for path in source.glob(pattern):
            shutil.copy2(path, target)


@contextmanager
def cluster(folder: Path, count: int = 2, *, join: bool = True, **words: Any) -> Iterator[Cluster]:
    """A cluster that is up, and joined by all others; each laptop has one core of this machine."""
    with separate(folder, count, **words) as held:
        seconds = {"up_s": held.up()}
        if join:
            for laptop in held.laptops.all[1:]:
                seconds["join_s"] = held.join(laptop)
        print("cluster", seconds)
        yield held


@contextmanager
def separate(folder: Path, count: int = 2, **words: Any) -> Iterator[Cluster]:
    """Laptops that are on one network, and no cluster yet."""
    cores = tuple(number % (os.cpu_count() or 1) for number in range(count))
    with laptops(folder, count, cores=cores, **words) as made:
        for laptop in made.all:
            give_what_was_measured(laptop)
        held = Cluster(made)
        try:
            yield held
        finally:
            held.show()
        for laptop in made.all:
            keep_what_was_measured(laptop)
