import warnings
from types import SimpleNamespace

import ledgers
import pytest

from tuning.on_ray.asha import LedgerAsha


def asha(rows=(), mode="max", max_epochs=9):
    return LedgerAsha(rows, mode, max_epochs, grace_epochs=1, reduction_factor=3)


def run(scheduler, row, values):
    """The decisions over a trial's curve, as Ray asks for them; it ends at the first STOP."""
    trial = SimpleNamespace(trial_id=f"ray-{row}", config={"row": row})
    scheduler.on_trial_add(None, trial)
    decisions = []
    for epoch, value in enumerate(values, start=1):
        decisions.append(scheduler.on_trial_result(None, trial, {"epoch": epoch, "value": value}))
        if decisions[-1] == "STOP":
            break
    scheduler.on_trial_complete(None, trial, {})
    return decisions


def ledger_rows(curves):
    return [ledgers.row(number, {"x": number}, curve=curve) for number, curve in enumerate(curves)]


@pytest.mark.parametrize(("mode", "bad"), [("max", 0.1), ("min", 0.9)])
def test_a_trial_far_worse_than_the_others_is_stopped_at_a_rung(mode, bad):
    scheduler = asha(mode=mode)
    for row in range(4):
        assert run(scheduler, row, [0.5] * 9) == ["CONTINUE"] * 9
    assert run(scheduler, 4, [bad] * 9) == ["STOP"]


def test_after_a_restart_it_knows_what_the_ledger_knows():
    curves = [[0.5] * 9] * 4
    assert run(asha(ledger_rows(curves)), 4, [0.1] * 9) == ["STOP"]
    assert run(asha(), 4, [0.1] * 9) == ["CONTINUE"] * 9


def test_a_row_that_goes_on_after_a_restart_counts_once():
    rows = ledger_rows([[0.5], [0.6], [0.7, 0.7]])
    scheduler = asha(rows)
    before = scheduler.debug_string()
    trial = SimpleNamespace(trial_id="new", config={"row": 2})
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {"epoch": 1, "value": 0.7}) == "CONTINUE"
    assert scheduler.debug_string() == before


def test_what_is_no_epoch_lowers_no_bar():
    scheduler = asha()
    with warnings.catch_warnings(action="error"):
        assert run(scheduler, 5, [float("nan")] * 3) == ["CONTINUE"] * 3
        assert run(scheduler, 6, [0.5]) == ["CONTINUE"]
    for row in range(4):
        run(scheduler, row, [0.5] * 9)
    before = scheduler.debug_string()
    assert run(scheduler, 4, [float("nan")] * 3) == ["CONTINUE"] * 3
    assert scheduler.debug_string() == before


def test_a_trial_at_its_last_epoch_is_complete_and_not_stopped():
    scheduler = asha(max_epochs=3)
    for row in range(4):
        run(scheduler, row, [0.5, 0.5, 0.5])
    assert run(scheduler, 4, [0.5, 0.5, 0.1])[-1] == "CONTINUE"
