import pytest
from ledgers import end, row, run_trial

from tuning.ledger import Ledger
from tuning.observer import Observer, Observers, best_row


class Calls(Observer):
    def __init__(self, calls, name):
        self.calls = calls
        self.name = name

    def started(self, row):
        self.calls.append((self.name, "started", row.number))

    def fitted(self, row):
        self.calls.append((self.name, "fitted", row.forecast_mb))

    def reported(self, row, report):
        self.calls.append((self.name, "reported", report.epoch))

    def finished(self, row):
        self.calls.append((self.name, "finished", row.outcome))

    def noted(self, text):
        self.calls.append((self.name, "noted", text))

    def ticked(self, snapshot):
        self.calls.append((self.name, "ticked", snapshot))


def test_several_observers_all_get_every_call_in_their_order(tmp_path):
    calls = []
    both = Observers([Calls(calls, "one"), Calls(calls, "two")])
    with Ledger(tmp_path, {}) as ledger:
        run_trial(ledger, {"x": 1}, end(), [0.5], [both])
        both.fitted(ledger.fit(0, 700, ""))
    both.noted("a note")
    both.ticked("a snapshot")
    expected = [
        ("started", 0), ("reported", 1), ("finished", "completed"), ("fitted", 700),
        ("noted", "a note"), ("ticked", "a snapshot"),
    ]  # fmt: skip
    assert calls == [(name, *call) for call in expected for name in ("one", "two")]


ROWS = [
    row(0, {"x": 0}, end(value=0.5)),
    row(1, {"x": 1}, end(value=0.7)),
    row(2, {"x": 2}, end(value=0.7)),
    row(3, {"x": 3}, end("stopped", 0.9)),
    row(4, {"x": 4}, end("stopped", 0.1)),
    row(5, {"x": 5}, curve=[0.95]),
]


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_the_best_row_is_a_completed_one_the_earliest_among_equals(mode, best):
    assert best_row(ROWS, mode) == ROWS[best]


def test_the_best_of_some_of_the_rows_is_found():
    assert best_row(ROWS[1:], "min") == ROWS[1]


def test_without_a_completed_row_there_is_no_best():
    assert best_row(ROWS[3:], "max") is None
    assert best_row([], "min") is None
