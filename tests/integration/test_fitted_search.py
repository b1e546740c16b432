"""A search of a toy objective whose memory is forecast, with a real Ray."""

import json
import threading
import time

import pytest
from holding_toy import CAP_MB, CASES, EPOCHS, Holding, forecast

from tuning.observer import Observer
from tuning.search import run_search
from tuning.settings import Settings
from tuning.space import Space


class Noting(Observer):
    def __init__(self):
        self.notes = []
        self.fitted_rows = []

    def noted(self, text):
        self.notes.append(text)

    def fitted(self, row):
        self.fitted_rows.append(row)


def search(folder, forecaster, observer, should_stop=lambda: False):
    settings = Settings(
        trials=len(CASES), max_epochs=EPOCHS, cap_mb=CAP_MB, concurrency=1, scheduler="none", searcher="random"
    )
    return run_search(
        Holding(str(folder / "trace")), Space.parse({"case": {"choice": list(CASES)}}), {"case": "low"}, folder, {},
        settings, observer=observer, forecast=forecaster, should_stop=should_stop,
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    observer = Noting()
    result = search(folder, forecast, observer)
    return {row.config["case"]: row for row in result.rows}, observer, folder


def did(folder, case):
    lines = [json.loads(line) for line in (folder / "trace").read_text().splitlines()]
    return [line for line in lines if line["case"] == case]


def test_what_fits_in_parts_completes_and_what_fits_in_none_is_never_started(searched):
    rows, _, folder = searched
    for case in ("fits", "fits in parts"):
        assert (rows[case].outcome, rows[case].halvings) == ("completed", 0)
    assert rows["fits in parts"].fitted.endswith("parts")
    infeasible = rows["infeasible"]
    assert (infeasible.outcome, infeasible.is_infeasible, infeasible.starts) == ("memory_cap", True, 0)
    assert infeasible.finish.error == f"needs {infeasible.finish.peak_mb} MB, cap {CAP_MB}"
    assert did(folder, "infeasible") == []


def test_an_infeasible_row_is_known_in_well_under_a_second(searched):
    rows, _, folder = searched
    events = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    times = {event["event"]: event["time_ms"] for event in events if event.get("row") == rows["infeasible"].number}
    assert list(times) == ["proposed", "finished"]
    assert times["finished"] - times["proposed"] < 700


def test_a_trial_that_was_forecast_too_low_goes_on_from_its_checkpoint_with_half_and_completes(searched):
    rows, observer, folder = searched
    row = rows["low"]
    assert (row.outcome, row.halvings, row.starts) == ("completed", 1, 2)
    assert row.finish.value == EPOCHS / 10
    steps = did(folder, "low")
    assert [step["did"] for step in steps] == ["begin", "epoch 1", "begin", "epoch 2", "epoch 3"]
    assert [step["halvings"] for step in steps if step["did"] == "begin"] == [0, 1]
    assert any(note.startswith("trial 0 hit its cap") for note in observer.notes)


def test_one_that_needs_too_much_with_half_too_ends_at_its_cap_after_two_tries(searched):
    rows, _, folder = searched
    row = rows["far too low"]
    assert (row.outcome, row.halvings, row.is_infeasible) == ("memory_cap", 1, False)
    assert [step["did"] for step in did(folder, "far too low")].count("begin") == 2


def test_later_trials_plan_with_less_since_a_forecast_was_too_low(searched):
    rows, observer, folder = searched
    first = did(folder, "low")[0]
    assert first["memory_mb"] == CAP_MB
    for case in ("fits", "fits in parts", "far too low"):
        for step in did(folder, case):
            assert step["did"] != "begin" or step["memory_mb"] < CAP_MB
    assert rows["low"].peak_to_forecast > 1.3
    assert rows["infeasible"].finish.peak_mb > 440 * 1.3, "corrected"
    assert {row.number for row in observer.fitted_rows} == {row.number for row in rows.values() if row.starts}


def test_asked_to_leave_a_search_waits_for_no_forecast(tmp_path):
    asked_at, over = [], threading.Event()

    def never(config, cap_mb, node):
        asked_at.append(time.monotonic())
        over.wait()

    def should_stop():
        return bool(asked_at) and time.monotonic() > asked_at[0] + 1.5

    observer = Noting()
    try:
        result = search(tmp_path, never, observer, should_stop)
    finally:
        over.set()
    assert (result.ended, observer.notes) == ("asked", [])
    [row] = result.rows
    assert (row.finish, row.starts) == (None, 0)
    assert len(asked_at) == 1
    assert time.monotonic() - asked_at[0] < 25, "Ray's own end included"
