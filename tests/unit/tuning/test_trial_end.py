import pytest

from tuning.capped.run_capped import Capped
from tuning.ledger import EpochReport, Finish
from tuning.trial_end import LostTrialError, Progress, finish_of


def capped(outcome, value=None, error=None, traceback=None, stop_reason=None):
    return Capped(outcome, value, error, traceback, None, stop_reason, 70.0, 10.0, 1000, 5.0)


def progress(*values, mode="max"):
    reported = Progress(mode)
    for epoch, value in enumerate(values, start=1):
        reported.add(EpochReport(epoch, value))
    return reported


def finish(outcome, value=None, **rest):
    return Finish(outcome, value, peak_mb=70.0, cap_mb=1000, epochs=3, **rest)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (capped("completed", "completed"), finish("completed", 0.6)),
        (capped("completed", "diverged: loss is nan"), finish("diverged", error="diverged: loss is nan")),
        (capped("memory_cap"), finish("memory_cap")),
        (capped("memory_cap", error="MemoryError"), finish("memory_cap", error="MemoryError")),
        (
            capped("failed", error="ValueError: no", traceback="Traceback"),
            finish("failed", error="ValueError: no", details="Traceback"),
        ),
        (capped("completed", "paused", stop_reason="leave"), None),
        (capped("killed", error="ended by SIGKILL", stop_reason="leave"), None),
    ],
)
def test_a_row_is_finished_as_its_process_ended(result, expected):
    assert finish_of(result, progress(0.2, 0.6, 0.4)) == expected


def test_a_capped_or_failed_trial_stays_so_though_it_was_asked_to_leave():
    assert finish_of(capped("memory_cap", stop_reason="leave"), progress()).outcome == "memory_cap"
    assert finish_of(capped("failed", stop_reason="leave"), progress()).outcome == "failed"


def test_an_objective_that_reported_nothing_has_failed():
    ended = finish_of(capped("completed", "completed"), progress())
    assert (ended.outcome, ended.error) == ("failed", "the objective reported nothing")


def test_a_process_that_was_killed_without_being_asked_to_leave_is_lost():
    with pytest.raises(LostTrialError, match="ended by SIGKILL"):
        finish_of(capped("killed", error="ended by SIGKILL"), progress(0.5))
    with pytest.raises(LostTrialError, match="no word of why"):
        finish_of(capped("killed"), progress(0.5))


@pytest.mark.parametrize(("mode", "best"), [("max", 0.6), ("min", 0.2)])
def test_the_best_value_follows_the_mode(mode, best):
    assert progress(0.4, 0.2, 0.6, 0.3, mode=mode).best == best


def test_reports_that_come_again_after_a_resume_do_not_lower_the_epoch():
    reported = progress(0.1, 0.2, 0.3)
    reported.add(EpochReport(2, 0.2))
    assert reported.epochs == 3
