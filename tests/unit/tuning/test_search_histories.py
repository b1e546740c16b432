"""Thousands of searches as they may happen: decisions, ledger and sampler against a made-up world.

Trials report in any order, wait for room, give their rows back, and leave nodes that run short of memory. Processes
are lost, attempts that were given up go on talking, and the driver is killed between any two writes or in the middle
of one, and begun again. In half of the searches memory is forecast: forecasts come late, or never, some are too low,
and some trials need too much. Nodes join, leave in order, are killed, freeze and wake, are cut off for a short or a
long time, and the store's disk is full for a while. Each history follows from its seed alone.
"""

import json
import random
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from tuning import ledger as ledger_module
from tuning.capacity import WORKER_MB, Node
from tuning.decisions import Decisions
from tuning.errors import AllTrialsFailedError
from tuning.fit import Fit, correction
from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Finish, Ledger
from tuning.nodes_in_use import NodesInUse
from tuning.observer import Observer
from tuning.settings import Settings
from tuning.space import Space, canonical

EPOCHS = 3
SPACES = [
    Space.parse({"x": {"integer": [0, high]}, "hog": {"choice": [False, True]}})
    for high in (1, 6)  # one of them has fewer configurations than some searches want
]
IDENTITY = {"model": "made up"}
CAP_MB = 1000
EVENTS = ("room_left", "node_losses", "woken", "left_in_order", "joined")


def forecast_mb(config, halvings=0):
    """What is forecast for a configuration: of the hogs a third are forecast not to fit, the others too low."""
    need = 500 if not config["hog"] else 1240 if config["x"] % 3 == 0 else 900
    return need / 2**halvings


def held_mb(config, halvings):
    """What a trial of it holds: of the hogs that are forecast too low one half fits with half as much at once."""
    low = {1: 1.3, 2: 2.4}.get(config["x"] % 3, 1.0) if config["hog"] else 1.0
    return forecast_mb(config, halvings) * low


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


@dataclass(eq=False)
class Place:
    """A node. Ray counts it as alive for some time after it has frozen or was cut off."""

    id: str
    name: str
    slots: int
    state: str = "up"
    """Or "frozen", "cut"."""
    back_at: float = 0.0
    why_not: str = ""
    """Why it leaves."""
    leaves_by: float = 0.0

    @property
    def node(self):
        return Node(self.name, self.slots, self.slots * (CAP_MB + WORKER_MB), self.id, self.why_not)


@dataclass(eq=False)
class Process:
    """An attempt at a row, and what it has said that nobody has heard yet."""

    number: int
    attempt: int
    config: dict
    epoch: int
    halvings: int
    place: Place
    unheard: list = field(default_factory=list)
    is_done: bool = False
    is_known: bool = False
    """The decisions have heard that it started."""
    is_given_up: bool = False
    """It was lost, or its row given back: nothing that it says counts any more."""

    @property
    def waits(self):
        return self.unheard[:1] == [("waits",)]


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
        self.node_rate = self.rng.choice([0.0, 0.05, 0.2])
        """How often something happens to a node."""
        self.ids = 0
        self.places = [self._place("head")]
        self.places += [self._place(name) for name in ("one", "two")[: self.rng.randint(0, 2)]]
        self.zombies = []
        """Processes that were given up with their node, and live."""
        self.node_losses = self.woken = self.left_in_order = self.joined = 0
        self.disk_is_full_until = 0.0
        self.loss_rate = self.rng.choice([0.0, 0.05, 0.2])
        self.short_rate = self.rng.choice([0.0, 0.1, 0.4])
        self.move_rate = self.rng.choice([0.0, 0.5])
        self.room_left = 0
        self.kills_left = self.rng.randint(0, 3)
        self.forecasts = self.rng.choice([None, None, "come", "come late", "never come"])
        self.attempts = {}  # the checkpoint store's: they outlive a driver
        self.checkpoints = {}
        self.told = {}
        self.ended = None
        self.now = 0.0
        self.pending = []
        self.was_silent = False
        self.run_with = set()
        """Rows that were run, each with its halvings then."""

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
            cap_mb=CAP_MB,
            concurrency=0,
            observer=Ends(self.told),
            begin_attempt=self._begin_attempt,
            drop_checkpoint=self._drop,
            clock=lambda: self.now,
            fit=self._fit(),
        )
        leave_at = self.rng.choice([None, None, None, self.rng.uniform(0, 60)])
        self.decisions, self.in_use = decisions, NodesInUse(CAP_MB, self.rng.choice([None, 2]), 1.0)
        self.running, self.holders, given_up = {}, [], []
        pending = []
        """Rows that were handed out, for which Ray has no free place."""
        self._look()
        for _ in range(20_000):
            self.now += self.rng.random()
            if self.rng.random() < self.node_rate:
                self._happen_to_a_node()
            self._pass_time_on_nodes()
            if self.rng.random() < 0.5:
                self._look()
            if self.forecasts == "come" or (self.forecasts == "come late" and self.rng.random() < 0.1):
                self._forecast()
            asked = leave_at is not None and self.now >= leave_at
            is_leaving = decisions.leave_if_due(asked)
            if is_leaving and decisions.has_left:
                return decisions.conclusion()
            while (row := decisions.next_row()) is not None:
                assert row.finish is None, "a row that has ended is run again"
                assert row.number not in self.running
                assert row.number not in [each.number for each in pending]
                assert len(self.running) + len(pending) < self.concurrency
                pending.append(row)
            self._start_where_there_is_room(pending)
            if not self.running and not pending and decisions.has_no_more:
                return decisions.conclusion()
            if self.zombies and self.rng.random() < 0.2:
                self._let_a_zombie_act()
            if given_up and self.rng.random() < 0.2:
                self._hear(decisions, self.rng.choice(given_up), stops=False)
                continue
            able = [number for number in sorted(self.running) if self.running[number].place.state == "up"]
            if not able:
                continue
            process = self.running[self.rng.choice(able)]
            if self.rng.random() < self.loss_rate:
                given_up.append(process)
                self._lose(process)
                continue
            if process.waits and (process.place.why_not or self.rng.random() < self.move_rate):
                assert decisions.gives_row_back(process.number, process.attempt)
                process.is_given_up = True
                self.holders.append(self.running.pop(process.number))  # it stays where it is, without a row
                given_up.append(process)
                continue
            if process.place.why_not and not process.is_done:
                process.is_done = True
                self._save(process)
                process.unheard.append(("left node",))
                self.left_in_order += 1
            elif process.unheard and self.rng.random() < 0.6:
                self._hear(decisions, process, stops=self.rng.random() < 0.05)
            elif is_leaving and not process.is_done:
                process.is_done = True  # it saves, and leaves
            elif self.rng.random() < self.short_rate and process.is_known and not process.is_done:
                process.is_done = True
                process.unheard.append(("left node",))
            else:
                self._work(process)
            ended = ledger.rows[process.number].finish is not None
            leaves = process.is_done and not process.unheard and self.rng.random() < 0.8
            if self.running.get(process.number) is process and (ended or leaves):
                given_up.append(self.running.pop(process.number))
                decisions.left(process.number)
        raise AssertionError("the search does not end")

    # nodes

    def _place(self, name):
        self.ids += 1
        slots = self.rng.choice([1, 1, 2] if name != "head" else [0, 1, 1, 2])  # a head may be too small
        return Place(str(self.ids), name, slots)

    def _look(self):
        """The driver looks at the nodes."""
        change = self.in_use.look([place.node for place in self.places], self.decisions.rows_on)
        if change is not None:
            names = [node.name for node in change.capacity.nodes]
            self.concurrency = change.capacity.concurrency
            self.decisions.nodes_are(names, self.concurrency, change.gone)

    def _happen_to_a_node(self):
        what = self.rng.choice(["join", "leave", "leave", "leave", "kill", "freeze", "cut", "stay", "disk is full"])
        others = [place for place in self.places if place.name != "head" and place.state == "up"]
        if what == "disk is full":
            self.disk_is_full_until = self.now + self.rng.uniform(0, 10)
        elif what == "join":
            self._join()
        elif others:
            place = self.rng.choice(others)
            match what:
                case "leave":
                    place.why_not, place.leaves_by = "it leaves", self.now + self.rng.uniform(2, 15)
                case "stay" if place.why_not:  # its disk is no longer full
                    place.why_not = ""
                case "kill":
                    self._lose_place(place)
                case "freeze" | "cut":
                    place.state = {"freeze": "frozen", "cut": "cut"}[what]
                    place.back_at = self.now + self.rng.choice([2.0, 30.0])

    def _join(self):
        free = {"one", "two", "three"} - {place.name for place in self.places}
        if free:
            self.joined += 1
            self.places.append(self._place(self.rng.choice(sorted(free))))

    def _pass_time_on_nodes(self):
        """Nodes are back, are given up, or have left; without any that has room, one joins."""
        for place in list(self.places):
            if place.state != "up" and self.now >= place.back_at:
                place.state = "up"  # in time: nothing has happened
            elif place.state != "up" and place.back_at - self.now < 20 < place.back_at and self.rng.random() < 0.2:
                self._lose_place(place, live_on=True)
            elif place.why_not and self.now >= place.leaves_by:
                self._lose_place(place)
        for holder in list(self.holders):  # there is room, or its node stays after all
            if not holder.place.why_not and self.rng.random() < 0.1:
                self.holders.remove(holder)
        if not any(place.slots and not place.why_not for place in self.places):
            self._join()

    def _lose_place(self, place, live_on=False):
        """Ray gives a node up; the driver learns of that before or after the losses of its trials."""
        self.places.remove(place)
        self.holders = [each for each in self.holders if each.place is not place]
        if self.rng.random() < 0.5:
            self._look()
        for process in [each for each in self.running.values() if each.place is place]:
            if live_on:
                self.zombies.append(process)
            self.node_losses += 1
            self._lose(process)
        self._look()

    def _let_a_zombie_act(self):
        """It works on, sends its checkpoint and its messages, and ends as soon as it asks whether to."""
        zombie = self.rng.choice(self.zombies)
        if zombie.place.state != "up" and self.now < zombie.place.back_at:
            return
        self.woken += 1
        self._work(zombie)
        self._hear(self.decisions, zombie, stops=False)
        if self.attempts[zombie.number] != zombie.attempt and self.rng.random() < 0.5:
            self.zombies.remove(zombie)

    def _start_where_there_is_room(self, pending):
        for row in list(pending):
            taken = [each.place for each in (*self.running.values(), *self.holders)]
            free = [place for place in self.places if taken.count(place) < place.slots and place.state == "up"]
            if free:  # also on one that leaves: Ray does not know
                pending.remove(row)
                self.running[row.number] = self._begin(row, self.rng.choice(free))

    # trials

    def _fit(self):
        self.pending.clear()
        if self.forecasts is None:
            return None

        def forecaster(config, cap_mb, node):
            return Forecast(forecast_mb(config))

        def noted(text):
            self.was_silent = True

        return Fit(forecaster, ["a node"], CAP_MB, noted, self._begin_forecast, lambda: self.now, 0.0)

    def _begin_forecast(self, call):
        self.pending.append((Future(), call))
        return self.pending[-1][0]

    def _forecast(self):
        for future, call in self.pending:
            future.set_result(call())
        self.pending.clear()

    def _begin_attempt(self, number):
        self.attempts[number] = self.attempts.get(number, 0) + 1
        return self.attempts[number]

    def _begin(self, row, place):
        number, halvings = row.number, row.halvings
        epoch = self.checkpoints.get(number, 0)
        process = Process(number, self.decisions.attempt(number), dict(row.config), epoch, halvings, place)
        self.run_with.add((number, halvings))
        process.unheard += [("waits",)] * self.rng.choice([0, 0, 1, 3] if not place.why_not else [1])
        process.unheard.append(("started",))
        if self.forecasts:
            process.unheard.append(("fitted",))
        process.unheard += [("report", done) for done in range(1, epoch + 1)]
        return process

    def _work(self, process):
        if process.is_done:
            return
        held = held_mb(process.config, process.halvings)
        if held > CAP_MB and (process.epoch == EPOCHS - 1 or self.rng.random() < 0.7):
            process.unheard.append(("finished", Finish("memory_cap", peak_mb=held, cap_mb=CAP_MB)))
            process.is_done = True
        elif process.epoch < EPOCHS:
            process.epoch += 1
            process.unheard.append(("report", process.epoch))
            self._save(process)
        else:
            best = max(value(process.config, epoch) for epoch in range(1, EPOCHS + 1))
            process.unheard.append(("finished", Finish("completed", value=best, epochs=EPOCHS)))
            process.is_done = True

    def _save(self, process):
        """Its checkpoint is sent: the store refuses an older attempt's, and every one while its disk is full."""
        if self.attempts[process.number] == process.attempt and self.now >= self.disk_is_full_until:
            assert process.epoch >= self.checkpoints.get(process.number, 0), "a row goes back"
            self.checkpoints[process.number] = process.epoch

    def _hear(self, decisions, process, stops):
        if not process.unheard:
            return
        number, attempt = process.number, process.attempt
        before = self.ledger.rows[number]
        match process.unheard.pop(0):
            case ("waits",):
                decisions.waits(number, attempt, "waits for room")
            case ("left node",):
                decisions.left_node(number, attempt, f"left {process.place.name}")
                self.room_left += 1
            case ("started",):
                process.is_known = True
                decisions.started(number, attempt, process.place.name)
            case ("fitted",):
                decisions.fitted(number, attempt, Forecast(forecast_mb(process.config, process.halvings)))
            case ("report", epoch):
                peak_mb = min(held_mb(process.config, process.halvings), CAP_MB)
                report = EpochReport(epoch, value(process.config, epoch), peak_mb=peak_mb)
                decisions.reported(number, attempt, report, stopped=stops)
            case ("finished", finish):
                decisions.finished(number, attempt, finish)
        assert not process.is_given_up or self.ledger.rows[number] == before, "a lost attempt was listened to"

    def _lose(self, process):
        process.is_given_up = True
        del self.running[process.number]
        self.decisions.lost(process.number, "killed")
        self.decisions.left(process.number)

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
                assert held_mb(row.config, row.halvings) <= CAP_MB
            case "memory_cap":
                assert row.config["hog"]
                assert row.is_infeasible or held_mb(row.config, row.halvings) > CAP_MB
                assert row.is_infeasible or row.halvings == bool(world.forecasts), "it did not go on once"
            case "failed":
                assert row.finish.lost
                assert world.loss_rate > 0 or world.settings.restarts == 0, "it was lost with its nodes"
    if world.forecasts:
        check_fit(world, rows)
    completed = [row for row in rows if row.finish.outcome == "completed"]
    kept = {number for number in world.checkpoints if rows[number].finish}
    best = max(completed, key=lambda row: (row.finish.value, -row.number), default=None)
    assert kept <= ({best.number} if best else set())
    assert kept or not best or world.disk_is_full_until, "the best one's checkpoint is gone"


def check_fit(world, rows):
    hits = [event["row"] for event in events(world.folder) if event["event"] == "hit_cap"]
    assert hits == list(dict.fromkeys(hits)), "a row went on twice"
    assert sorted(hits) == [row.number for row in rows if row.halvings]
    for row in rows:
        if row.halvings:
            assert world.run_with >= {(row.number, 0), (row.number, 1)}
        if row.is_infeasible:
            assert not row.halvings
            assert not world.forecasts.startswith("never")
            factor = row.finish.peak_mb / forecast_mb(row.config)
            assert 1 <= factor <= correction(rows) + 0.01 <= 2.01
            assert row.finish.peak_mb > CAP_MB
        if forecast_mb(row.config) > CAP_MB and not world.was_silent:
            assert row.is_infeasible
            assert (row.number, 0) not in world.run_with, "it was started though it was known not to fit"


@pytest.mark.parametrize("block", range(10))
def test_every_history_ends_each_row_once_and_loses_nothing(tmp_path, block):
    happened = Counter()
    for seed in range(block * 200, (block + 1) * 200):
        world, rows = history(tmp_path / str(seed), seed)
        happened.update({name: getattr(world, name) for name in EVENTS})
        try:
            check(world, rows)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert all(happened[name] > 10 for name in EVENTS), happened


def test_the_same_holds_for_the_sampler_that_learns(tmp_path):
    for seed in range(40):
        check(*history(tmp_path / str(seed), seed, "optuna"))


def test_the_histories_hold_every_way_in_which_a_trial_does_not_fit(tmp_path):
    missing = {
        ("memory_cap", True, False, 0),
        ("memory_cap", True, True, 0),
        ("memory_cap", False, False, 1),
        ("completed", False, False, 1),
        ("completed", False, False, 0),
    }
    for seed in range(200):
        world, rows = history(tmp_path / str(seed), seed)
        for row in rows if world.forecasts else []:
            is_corrected = row.is_infeasible and forecast_mb(row.config) <= CAP_MB
            missing -= {(row.outcome, row.is_infeasible, is_corrected, row.halvings)}
        if not missing:
            return
    pytest.fail(f"no history in which this happens: {missing}")


def test_a_history_follows_from_its_seed(tmp_path):
    for seed in range(60):
        for side in ("one", "other"):
            history(tmp_path / side / str(seed), seed)
        assert events(tmp_path / "one" / str(seed)) == events(tmp_path / "other" / str(seed))
