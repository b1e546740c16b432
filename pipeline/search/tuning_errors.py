"""The errors of `tuning`, as errors of this program, each with its exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError, MachineUnfitError, SeqpipeError, WorkspaceError
from pipeline.stop import StopToken
from tuning.capped.run_capped import CapTooLowError
from tuning.errors import (
    AllTrialsFailedError,
    AskedToLeaveError,
    CapDoesNotFitError,
    ClusterError,
    LedgerError,
    SearchError,
    SpaceError,
)


@contextmanager
def translated(stop_token: StopToken) -> Iterator[None]:
    """Within this, errors of `tuning` become ours; a search that was asked to leave raises what the token says."""
    try:
        yield
    except AskedToLeaveError:
        stop_token.raise_if_asked()
        raise
    except SpaceError as error:
        raise ConfigError(str(error)) from error
    except (CapDoesNotFitError, ClusterError) as error:
        raise MachineUnfitError(str(error)) from error
    except CapTooLowError as error:
        raise MachineUnfitError(
            f"a trial cannot run in {error.cap_mb:.0f} MB: its imports alone take {error.floor_mb:.0f} MB; "
            "give it more with --trial-memory-mb"
        ) from error
    except LedgerError as error:
        raise WorkspaceError(f"{error}; --fresh begins it anew") from error
    except AllTrialsFailedError as error:
        if error.details:
            error.add_note(error.details)  # shown by --debug
        raise (MachineUnfitError if error.kind == MachineUnfitError.__name__ else SeqpipeError)(str(error)) from error
    except SearchError as error:
        raise SeqpipeError(str(error)) from error
