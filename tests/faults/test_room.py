"""A search in a control group, beside a program that takes nearly all of its memory for a while (root only)."""

import json
import subprocess
import sys
import time

import pytest
import toy_search
from control_groups import control_group
from toy_search import EPOCHS

from tuning import ledger

RESERVE_MB = 800
ONE_SETTING = {"space": {"x": {"uniform": [0, 1]}}, "default": {"x": 0.5}}
TAKER = """
import sys, time
from tuning.machine import this_machine
until_mb, step_mb = map(int, sys.argv[1:])
held = []
while this_machine().available_bytes / 1e6 > until_mb + step_mb:
    held.append(bytearray(b"x") * (step_mb * 1_000_000))
    time.sleep(0.05)
print("taken", flush=True)
sys.stdin.read()
"""


class Group:
    """Starts processes inside a group; `said` is what the search has printed so far."""

    def __init__(self, group, folder):
        self._group = group
        self._folder = folder
        self._started = []
        self.said = []

    def start(self, *command):
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=self._group.enter,
        )
        self._started.append(process)
        return process

    def search(self, **words):
        settings = {"cap_mb": 200, "reserve_mb": RESERVE_MB} | words
        self.driver = self.start(toy_search.__file__, str(self._folder), json.dumps(settings))

    def take(self, until_mb):
        """A program that takes memory until that much is free, and holds it until its input ends."""
        taker = self.start("-c", TAKER, str(until_mb), "80")
        assert taker.stdout.readline() == "taken\n"
        return taker

    def wait_for(self, text):
        for line in self.driver.stdout:
            self.said.append(line)
            if text in line:
                return
        raise AssertionError(f"never said {text!r}: {self.said}")

    def end(self):
        self.said += self.driver.stdout.readlines()
        assert self.driver.wait(120) == 0, self.said
        rows = ledger.read(self._folder).rows
        for row in rows:
            assert row.finish.outcome == "completed"
            assert row.finish.value == pytest.approx(row.config["x"] * EPOCHS)
            assert [report.epoch for report in row.reports] == list(range(1, EPOCHS + 1))
        assert not any("lost" in line for line in self.said)
        return rows

    def close(self):
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def group(tmp_path):
    with control_group(2800, 2.0) as limited:
        made = Group(limited, tmp_path / "search")
        yield made
        made.close()


def give_back(taker):
    taker.communicate()


def test_trials_leave_when_another_program_takes_the_memory_and_go_on_when_it_is_given_back(group, tmp_path):
    gate = tmp_path / "gate"
    group.search(toy={"epoch_s": 0.2, "ends_after": str(gate)}, trials=3, **ONE_SETTING)
    for _ in range(2):
        group.wait_for("reported")
    taker = group.take(until_mb=RESERVE_MB * 3 // 8)
    for _ in range(2):
        group.wait_for("which is short of memory")
    gate.touch()
    time.sleep(3)
    assert not any("finished" in line for line in group.said)
    give_back(taker)
    assert [row.starts for row in group.end()] == [2, 2, 1]


def test_a_trial_waits_for_the_room_that_another_program_takes_before_it_starts(group, tmp_path):
    gate = tmp_path / "gate"
    group.search(toy={"epoch_s": 0.2, "ends_after": str(gate)}, trials=2, concurrency=1, **ONE_SETTING)
    group.wait_for("reported")
    taker = group.take(until_mb=RESERVE_MB * 5 // 8)
    gate.touch()
    group.wait_for("trial 1 waits for room on")
    give_back(taker)
    assert [row.starts for row in group.end()] == [1, 1]
