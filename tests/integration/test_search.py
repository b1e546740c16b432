"""Searches of a toy objective with a real Ray."""

import json
import os

import psutil
import pytest
from toy_search import DEFAULT, EPOCHS, Toy, search

from tuning.capacity import WORKER_MB, Node
from tuning.capped.run_capped import CapTooLowError
from tuning.errors import AllTrialsFailedError, CapDoesNotFitError, LedgerMismatchError
from tuning.observer import Observer
from tuning.on_ray import run
from tuning.sampler import Sampler
from tuning.space import Space


class Noting(Observer):
    def __init__(self):
        self.said = []
        self.notes = []
        self.snapshots = []

    def started(self, row):
        self.said.append(("started", row.number))

    def reported(self, row, report):
        self.said.append((report.epoch, row.number))

    def finished(self, row):
        self.said.append((row.finish.outcome, row.number))

    def noted(self, text):
        self.notes.append(text)

    def ticked(self, snapshot):
        self.snapshots.append(snapshot)


def did(trace):
    return [json.loads(line) for line in trace.read_text().splitlines()]


def descendants():
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def searched(place):
    observer = Noting()
    return search(place, Toy(), trials=7, observer=observer), observer


def test_hogs_are_capped_and_the_others_reach_what_they_reach_alone(searched):
    result, _ = searched
    assert result.ended == "finished"
    assert len(result.rows) == 7
    assert {row.config["hog"] for row in result.rows} == {True, False}
    for row in result.rows:
        if row.config["hog"]:
            assert row.finish.outcome == "memory_cap"
            assert row.finish.value is None
            assert row.finish.cap_mb == 120
            assert row.finish.peak_mb < 120 + 64
        else:
            assert row.finish.outcome == "completed"
            assert row.finish.value == pytest.approx(row.config["x"] * EPOCHS)
            assert [report.epoch for report in row.reports] == list(range(1, EPOCHS + 1))
        assert row.starts == 1  # a capped trial is not tried again
        assert row.finish.node == os.uname().nodename
    assert result.best.finish.value == max(row.finish.value for row in result.rows if row.finish.value)


def test_row_0_is_the_default_and_no_configuration_is_tried_twice(searched):
    result, _ = searched
    assert result.rows[0].config == DEFAULT
    assert len({row.key for row in result.rows}) == len(result.rows)


def test_the_observer_hears_everything_in_order(searched):
    result, observer = searched
    for row in result.rows:
        heard = [what for what, number in observer.said if number == row.number]
        assert heard[0] == "started"
        assert heard[-1] == row.finish.outcome
        assert heard[1:-1] == [report.epoch for report in row.reports]
    assert observer.notes == []
    assert max(len(snapshot.running) for snapshot in observer.snapshots) == 2
    assert observer.snapshots[-1].target == 7


def test_only_the_best_trials_checkpoint_is_kept(searched, place):
    result, _ = searched
    kept = list((place / "checkpoints").rglob("work/epoch"))
    assert [path.read_text() for path in kept] == [str(EPOCHS)]
    assert f"row-{result.best.number:05d}" in kept[0].parts
    assert result.freed_bytes > 0


def test_what_the_search_itself_holds_is_told(searched):
    result, observer = searched
    assert 200 < result.overhead_mb < 1500
    assert observer.snapshots[-1].overhead_mb <= result.overhead_mb


def test_nothing_is_left_running_and_nothing_lying_about(searched, place):
    assert descendants() == []
    assert sorted(path.name for path in place.iterdir()) == ["checkpoints", "ledger.jsonl"]


def test_the_same_again_does_nothing_and_extending_adds_to_it(searched, place):
    before = (place / "ledger.jsonl").read_bytes()
    again = search(place, Toy(), trials=7)
    assert again.ended == "finished"
    assert again.capacity is None  # no Ray was started
    assert (place / "ledger.jsonl").read_bytes() == before
    observer = Noting()
    extended = search(place, Toy(), trials=7, extend=1, observer=observer)
    assert extended.rows[:7] == searched[0].rows
    assert len({row.key for row in extended.rows}) == len(extended.rows) == 8
    assert {number for _, number in observer.said} == {7}


def test_a_search_that_was_asked_to_stop_goes_on_from_its_checkpoints(tmp_path):
    trace = tmp_path / "trace"
    toy = Toy(epoch_s=0.6, trace=str(trace))
    space = Space.parse({"x": {"uniform": [0, 1]}})
    observer = Noting()
    first = search(
        tmp_path / "s", toy, space, {"x": 0.5}, trials=2, observer=observer,
        should_stop=lambda: any(what == 2 for what, _ in observer.said),
    )  # fmt: skip
    assert first.ended == "asked"
    assert any(row.finish is None and row.last_epoch >= 2 for row in first.rows)
    assert descendants() == []
    second = search(tmp_path / "s", toy, space, {"x": 0.5}, trials=2)
    assert second.ended == "finished"
    assert [row.config for row in second.rows][: len(first.rows)] == [row.config for row in first.rows]
    for row in second.rows:
        assert [report.epoch for report in row.reports] == list(range(1, EPOCHS + 1))
        epochs = [each["did"] for each in did(trace) if each["x"] == row.config["x"] and each["did"] != "begin"]
        assert epochs == [f"epoch {n}" for n in range(1, EPOCHS + 1)]  # none was done twice


def test_asha_stops_the_worse_and_a_space_ends_when_all_of_it_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "TRIALS_PER_TUNER", 2)  # what was reached before Tune is started anew counts after it
    space = Space.parse({"x": {"choice": [0.9, 0.1, 0.2, 0.3]}})
    result = search(tmp_path, Toy(), space, {"x": 0.9}, trials=9, scheduler="asha", concurrency=1)
    assert result.ended == "exhausted"
    assert sorted(row.config["x"] for row in result.rows) == [0.1, 0.2, 0.3, 0.9]
    assert [row.finish.outcome for row in result.rows] == ["completed", "stopped", "stopped", "stopped"]
    for row in result.rows[1:]:
        assert row.finish.epochs == 1
        assert row.finish.value == row.config["x"]
        assert row.finish.peak_mb > 0
        assert row.finish.duration_s > 0
    again = search(tmp_path, Toy(), space, {"x": 0.9}, trials=9)
    assert (again.ended, again.capacity) == ("exhausted", None)  # told without a Ray
    for number in range(1, 4):  # one at a time, each proposal follows from the rows before it and the seed
        proposed = Sampler(space, 0, "optuna", "max").propose(result.rows[:number])
        assert proposed == (result.rows[number].config, result.rows[number].origin)


def test_when_every_trial_fails_it_stops_early_with_the_first_error(tmp_path):
    observer = Noting()
    with pytest.raises(AllTrialsFailedError, match=r"every trial failed, the first with: RuntimeError: no such data"):
        search(tmp_path, Toy(fails="raise"), trials=8, concurrency=1, failures_to_stop=2, observer=observer)
    assert observer.notes == ["trial 0 failed: RuntimeError: no such data"]
    assert [what for what, _ in observer.said if what == "failed"] == ["failed"] * 2


def test_a_trial_that_works_keeps_a_search_alive_in_which_others_fail(tmp_path):
    space = Space.parse({"x": {"choice": [0.9, 0.1, 0.2]}})
    toy = Toy(fails="raise the small", epoch_s=1.0)
    result = search(tmp_path, toy, space, {"x": 0.9}, trials=3, failures_to_stop=2)
    assert [row.finish.outcome for row in result.rows] == ["completed", "failed", "failed"]


def test_the_memory_of_a_trial_stays_what_it_was_and_what_an_unfinished_one_needs(tmp_path, monkeypatch):
    def with_memory(memory_mb, trials):
        monkeypatch.setattr("tuning.search.this_machine", lambda reserve: Node("here", 2, memory_mb))
        noting = Noting()
        result = search(
            tmp_path, Toy(), Space.parse({"x": {"uniform": [0, 1]}}), {"x": 0.5},
            cap_mb=None, trials=trials, observer=noting,
        )  # fmt: skip
        return result.capacity.cap_mb, noting.notes

    assert with_memory(1000, 1) == (1000 // 2 - WORKER_MB, [])
    assert with_memory(2000, 2) == (1000 // 2 - WORKER_MB, []), "whatever else the machine does by now"
    cap_mb = 800 // 2 - WORKER_MB
    assert with_memory(800, 3) == (
        cap_mb, [f"less memory is free than before: a trial may hold {cap_mb} MB now, not {500 - 160}"]
    )  # fmt: skip


def test_a_cap_that_does_not_fit_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(CapDoesNotFitError, match="largest cap that fits"):
        search(tmp_path, Toy(), cap_mb=10**8)
    assert descendants() == []


def test_a_cap_below_the_imports_is_refused_with_the_floor(tmp_path):
    with pytest.raises(CapTooLowError) as caught:
        search(tmp_path, Toy(), cap_mb=5)
    assert 5 < caught.value.floor_mb < 100
    assert descendants() == []


def test_another_search_in_the_same_folder_is_refused(searched, place):
    with pytest.raises(LedgerMismatchError, match="space"):
        search(place, Toy(), Space.parse({"x": {"uniform": [0, 0.5]}}))
