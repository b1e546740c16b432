"""Thousands of searches as they may happen: decisions, ledger and sampler against a made-up world.

Trials report in any order, wait for room, give their rows back, and leave nodes that run short of memory. Processes
are lost, attempts that were given up go on talking, and the driver is killed between any two writes or in the middle
of one, and begun again. Each history follows from its seed alone.
"""

import json
import random
from dataclasses import dataclass, field

import pytest

from tuning import ledger as ledger_module
from tuning.decisions import Decisions
from tuning.errors import AllTrialsFailedError
from tuning.ledger import EpochReport, Finish, Ledger
from tuning.observer import Observer
from tuning.settings import Settings
from tuning.space import Space, canonical

EPOCHS = 3
SPACES = [
    Space.parse({"x": {"integer": [0, high]}, "hog": {"choice": [False, True]}})
    for high in (1, 6)  # one of them has fewer configurations than some searches want
]
IDENTITY = {"model": "made up"}


class Killed(BaseException):
    """The driver's process is no more."""


class MortalLedger(Ledger):
    """A ledger whose process may be killed before a write, in the middle of it, or just after it."""

    writes_left = None
    rng = None

    def _append(self, event):
        if self.writes_left is None:
            super()._append(event)
            return
        self.writes_left -= 1
        if self.writes_left > 0:
            super()._append(event)
            return
        moment = self.rng.choice(["before", "torn", "after"])
        if moment == "torn":
            line = json.dumps(event)
            self._file.write(line[: self.rng.randrange(1, len(line))].encode())
            self._file.flush()
        if moment == "after":
            super()._append(event)
        raise Killed


@dataclass
class Process:
    """An attempt at a row, and what it has said that nobody has heard yet."""

    number: int
    attempt: int
    config: dict
    epoch: int
    unheard: list = field(default_factory=list)
    is_done: bool = False
    is_known: bool = False
    """The decisions have heard that it started."""
    is_given_up: bool = False
    """And that it was lost: nothing that it says counts any more."""


class Ends(Observer):
    """The ends that the user was told of."""

    def __init__(self, told):
        self.told = told

    def finished(self, row):
        assert row.number not in self.told, f"row {row.number} ended twice"
        self.told[row.number] = row.finish


class World:
    """What surrounds the decisions: trials, the checkpoint store, losses and kills."""

    def __init__(self, folder, seed, kind="random"):
        self.rng = random.Random(seed)
        self.space = self.rng.choice(SPACES)
        self.folder = folder
        self.settings = Settings(
            trials=self.rng.randint(2, 6),
            max_epochs=EPOCHS,
            searcher=kind,
            seed=seed,
            restarts=self.rng.randint(0, 2),
            failures_to_stop=99,
            grace_s=5.0,
        )
        self.concurrency = self.rng.randint(1, 3)
        self.loss_rate = self.rng.choice([0.0, 0.05, 0.2])
        self.short_rate = self.rng.choice([0.0, 0.1, 0.4])
        self.move_rate = self.rng.choice([0.0, 0.5])
        self.room_left = 0
        self.kills_left = self.rng.randint(0, 3)
        self.attempts = {}  # the checkpoint store's: they outlive a driver
        self.checkpoints = {}
        self.told = {}
        self.lost = {}
        self.ended = None
        self.now = 0.0

    def run(self):
        """Run the search to its end, through every kill; the rows that it leaves."""
        while True:
            ledger = MortalLedger(self.folder, IDENTITY)
            try:
                self.ended = self._one_driver(ledger)
                if self.ended in ("finished", "exhausted"):
                    return list(ledger.rows)
            except AllTrialsFailedError:
                self.ended = "failed"
                return list(ledger.rows)
            except Killed:
                continue
            finally:
                ledger.close()

    def _one_driver(self, ledger):
        self.ledger = ledger
        for number, finish in self.told.items():  # nothing that the user was told of is lost
            assert ledger.rows[number].finish == finish
        for row in ledger.rows:
            if row.finish:
                self.told[row.number] = row.finish  # written, and killed before it was told
        ledger.raise_target(self.settings.trials)
        if self.kills_left:
            self.kills_left -= 1
            ledger.rng, ledger.writes_left = self.rng, self.rng.randint(1, 25)
        decisions = Decisions(
            ledger,
            self.space,
            {"x": 1, "hog": False},
            self.settings,
            cap_mb=1000,
            concurrency=self.concurrency,
            observer=Ends(self.told),
            drop_checkpoint=self._drop,
            clock=lambda: self.now,
        )
        leave_at = self.rng.choice([None, None, None, self.rng.uniform(0, 60)])
        running, given_up = {}, []
        self.lost = {}
        for _ in range(20_000):
            self.now += self.rng.random()
            asked = leave_at is not None and self.now >= leave_at
            is_leaving = decisions.leave_if_due(asked)
            if is_leaving and decisions.has_left:
                return decisions.conclusion()
            while (row := decisions.next_row()) is not None:
                assert row.finish is None, "a row that has ended is run again"
                assert row.number not in running
                running[row.number] = self._begin(row.number, row.config)
            assert len(running) <= self.concurrency
            if not running:
                if decisions.has_no_more and not decisions.has_rows_left:
                    return decisions.conclusion()
                continue
            if given_up and self.rng.random() < 0.2:
                self._hear(decisions, self.rng.choice(given_up), stops=False)
                continue
            process = running[self.rng.choice(sorted(running))]
            if self.rng.random() < self.loss_rate:
                given_up.append(process)
                del running[process.number]
                again = self._lose(decisions, process)
                if again is not None:
                    running[process.number] = again
            elif process.unheard[:1] == [("waits",)] and self.rng.random() < self.move_rate:
                assert decisions.gives_row_back(process.number, process.attempt)
                del running[process.number]  # it stays where it is, without a row
                continue
            elif process.unheard and self.rng.random() < 0.6:
                self._hear(decisions, process, stops=self.rng.random() < 0.05)
            elif is_leaving and not process.is_done:
                process.is_done = True  # it saves, and leaves
            elif self.rng.random() < self.short_rate and process.is_known and not process.is_done:
                process.is_done = True
                process.unheard.append(("left for room",))
            else:
                self._work(process)
            ended = ledger.rows[process.number].finish is not None
            if running.get(process.number) is process and (ended or (process.is_done and not process.unheard)):
                given_up.append(running.pop(process.number))
                decisions.left(process.number)
        raise AssertionError("the search does not end")

    def _begin(self, number, config):
        self.attempts[number] = self.attempts.get(number, 0) + 1
        epoch = self.checkpoints.get(number, 0)
        process = Process(number, self.attempts[number], dict(config), epoch)
        process.unheard += [("waits",)] * self.rng.choice([0, 0, 1, 3])
        process.unheard.append(("started",))
        process.unheard += [("report", done) for done in range(1, epoch + 1)]
        return process

    def _work(self, process):
        if process.is_done:
            return
        if process.config["hog"]:
            process.unheard.append(("finished", Finish("memory_cap", peak_mb=1200, cap_mb=1000)))
            process.is_done = True
        elif process.epoch < EPOCHS:
            process.epoch += 1
            process.unheard.append(("report", process.epoch))
            if self.attempts[process.number] == process.attempt:  # the store refuses an older one
                self.checkpoints[process.number] = process.epoch
        else:
            best = max(value(process.config, epoch) for epoch in range(1, EPOCHS + 1))
            process.unheard.append(("finished", Finish("completed", value=best, epochs=EPOCHS)))
            process.is_done = True

    def _hear(self, decisions, process, stops):
        if not process.unheard:
            return
        number, attempt = process.number, process.attempt
        before = self.ledger.rows[number]
        match process.unheard.pop(0):
            case ("waits",):
                decisions.waits(number, attempt, "waits for room")
            case ("left for room",):
                decisions.left_for_room(number, attempt, "node", 300.0)
                self.room_left += 1
            case ("started",):
                process.is_known = True
                decisions.started(number, attempt, "node")
            case ("report", epoch):
                report = EpochReport(epoch, value(process.config, epoch), peak_mb=500.0)
                decisions.reported(number, attempt, report, stopped=stops)
            case ("finished", finish):
                decisions.finished(number, attempt, finish)
        assert not process.is_given_up or self.ledger.rows[number] == before, "a lost attempt was listened to"

    def _lose(self, decisions, process):
        """A process is lost; the one that takes its place at once, if one does."""
        number = process.number
        process.is_given_up = process.is_known
        self.lost[number] = self.lost.get(number, 0) + 1
        if self.rng.random() < 0.5 and self.lost[number] <= self.settings.restarts:
            decisions.restarted(number, "killed")
            return self._begin(number, process.config)
        decisions.lost(number, "killed")
        decisions.left(number)
        return None

    def _drop(self, number):
        self.attempts[number] = self.attempts.get(number, 0) + 1
        return self.checkpoints.pop(number, 0)


def value(config, epoch):
    return config["x"] / 10 + epoch / 100


def history(folder, seed, kind="random"):
    folder.mkdir(parents=True)
    world = World(folder, seed, kind)
    return world, world.run()


def events(folder):
    """The ledger's lines without the time of day."""
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [{key: each for key, each in line.items() if key != "time_ms"} for line in lines]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(ledger_module.os, "fsync", lambda _: None)


def check(world, rows):
    assert len(rows) == min(world.settings.trials, world.space.size)
    assert len({canonical(dict(row.config)) for row in rows}) == len(rows), "a configuration came twice"
    for row in rows:
        assert row.finish is not None
        assert row.ends == 1
        assert row.finish == world.told[row.number]
        for report in row.reports:
            assert report.value == value(row.config, report.epoch)
        epochs = [report.epoch for report in row.reports]
        assert epochs == list(range(1, len(epochs) + 1)), "an epoch is missing"
        match row.finish.outcome:
            case "completed":
                assert epochs == [1, 2, 3]
            case "memory_cap":
                assert row.config["hog"]
            case "failed":
                assert row.finish.lost
                assert world.loss_rate > 0
    completed = [row for row in rows if row.finish.outcome == "completed"]
    kept = {number for number in world.checkpoints if rows[number].finish}
    best = max(completed, key=lambda row: (row.finish.value, -row.number), default=None)
    assert kept == ({best.number} if best else set())


@pytest.mark.parametrize("block", range(10))
def test_every_history_ends_each_row_once_and_loses_nothing(tmp_path, block):
    left_for_room = 0
    for seed in range(block * 200, (block + 1) * 200):
        world, rows = history(tmp_path / str(seed), seed)
        left_for_room += world.room_left
        try:
            check(world, rows)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert left_for_room > 50


def test_the_same_holds_for_the_sampler_that_learns(tmp_path):
    for seed in range(40):
        check(*history(tmp_path / str(seed), seed, "optuna"))


def test_a_history_follows_from_its_seed(tmp_path):
    for seed in range(60):
        for side in ("one", "other"):
            history(tmp_path / side / str(seed), seed)
        assert events(tmp_path / "one" / str(seed)) == events(tmp_path / "other" / str(seed))
