import pytest

from pipeline.errors import (
    BudgetExhaustedError,
    ConfigError,
    MachineUnfitError,
    SeqpipeError,
    WorkspaceError,
)
from pipeline.search.tuning_errors import translated
from pipeline.stop import StopToken
from tuning.capped.run_capped import CapTooLowError
from tuning.errors import (
    AllTrialsFailedError,
    AskedToLeaveError,
    CapDoesNotFitError,
    CheckpointTransferError,
    ClusterError,
    LedgerError,
    LedgerMismatchError,
    SpaceError,
)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (SpaceError("empty"), ConfigError, "empty"),
        (CapDoesNotFitError("too large", 900), MachineUnfitError, "too large"),
        (ClusterError("no answer"), MachineUnfitError, "no answer"),
        (
            CapTooLowError(310.0, 300),
            MachineUnfitError,
            "a trial cannot run in 300 MB: its imports alone take 310 MB; give it more with --trial-memory-mb",
        ),
        (LedgerError("line 3 is damaged"), WorkspaceError, "line 3 is damaged; --fresh begins it anew"),
        (LedgerMismatchError("another", ("x",)), WorkspaceError, "another; --fresh begins it anew"),
        (AllTrialsFailedError("every trial failed"), SeqpipeError, "every trial failed"),
        (AllTrialsFailedError("no GPU", kind="MachineUnfitError"), MachineUnfitError, "no GPU"),
        (CheckpointTransferError("torn"), SeqpipeError, "torn"),
    ],
)
def test_each_error_of_a_search_has_its_class_here(error, kind, says):
    with pytest.raises(SeqpipeError) as caught, translated(StopToken()):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value) == says
    assert caught.value.__cause__ is error


def test_the_traceback_of_the_first_trial_is_kept_for_debug():
    error = AllTrialsFailedError("every trial failed", "Traceback of the trial")
    with pytest.raises(SeqpipeError), translated(StopToken()):
        raise error
    assert error.__notes__ == ["Traceback of the trial"]


def test_a_search_that_was_asked_to_leave_ends_with_the_reason():
    with pytest.raises(BudgetExhaustedError), translated(StopToken(max_time_s=0)):
        raise AskedToLeaveError


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), translated(StopToken()):
        raise ZeroDivisionError
