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


class Search:
    """A search inside the group; `said` is what it has printed so far."""

    def __init__(self, group, folder, **words):
        settings = {"cap_mb": 200, "reserve_mb": RESERVE_MB} | ONE_SETTING | words
        command = [sys.executable, toy_search.__file__, str(folder), json.dumps(settings)]
        self._folder = folder
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
        self.said = []

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


@pytest.fixture
def group():
    with control_group(2800, 2.0) as made:
        yield made


@pytest.fixture
def gate(tmp_path):
    """Has to exist before a trial may end."""
    return tmp_path / "gate"


@pytest.fixture
def begin(group, gate, tmp_path):
    started = []

    def begin(**words):
        toy = {"epoch_s": 0.2, "ends_after": str(gate)}
        started.append(Search(group, tmp_path / "search", toy=toy, **words))
        return started[-1]

    yield begin
    for search in started:
        search.driver.kill()
        search.driver.communicate()


def test_trials_leave_when_another_program_takes_the_memory_and_go_on_when_it_is_given_back(begin, group, gate):
    search = begin(trials=3)
    for _ in range(2):
        search.wait_for("reported")
    with group.with_little_left(RESERVE_MB * 3 // 8):
        for _ in range(2):
            search.wait_for("which is short of memory")
        gate.touch()
        time.sleep(3)
        assert not any("finished" in line for line in search.said)
    assert [row.starts for row in search.end()] == [2, 2, 1]


def test_a_trial_waits_for_the_room_that_another_program_takes_before_it_starts(begin, group, gate):
    search = begin(trials=2, concurrency=1)
    search.wait_for("reported")
    with group.with_little_left(RESERVE_MB * 5 // 8):
        gate.touch()
        search.wait_for("trial 1 waits for room on")
    assert [row.starts for row in search.end()] == [1, 1]
