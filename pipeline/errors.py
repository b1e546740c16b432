"""The errors that a user can cause, each with the exit code of its command.

Exit codes (README lists them too): 0 done or nothing to do, 1 failed, 2 bad usage or configuration, 3 the promotion
gate refused, 4 time used up (resumable), 5 memory cap, 6 machine or cluster not fit, 129/130/143 interrupted after a
checkpoint.
"""

import signal


class SeqpipeError(Exception):
    """A failure that a user can cause or fix.

    The message is one or two lines: what happened, then what to do. Only the command line turns it into an exit code.
    """

    exit_code = 1
    passes = False
    """Whether the cause may go away by itself, such as a server that is down."""
    is_of_one_seed = False
    """Whether a command for several seeds goes on with the others."""


class ConfigError(SeqpipeError):
    """A configuration, flag or name that cannot be used."""

    exit_code = 2


class DataError(SeqpipeError):
    """The data set is missing, cannot be fetched, is damaged, or is a different one."""


class WorkspaceError(SeqpipeError):
    """The workspace cannot be read or written: permissions, a full disk, a damaged manifest."""


class CheckpointError(SeqpipeError):
    """No checkpoint in a folder can be used."""

    is_of_one_seed = True


class TrainingDivergedError(SeqpipeError):
    """The loss is no longer finite."""

    is_of_one_seed = True


class TrackingError(SeqpipeError):
    """The MLflow store or server cannot be used."""

    is_of_one_seed = True  # what is trained meanwhile is registered by the next command

    def __init__(self, message: str, *, of_runs: str = "", passes: bool = False) -> None:
        """`of_runs` ends the message with what becomes of runs that cannot be recorded now."""
        super().__init__(f"{message}; {of_runs}" if of_runs else message)
        self.passes = passes
        self.message = message
        self.of_runs = of_runs


class ModelError(SeqpipeError):
    """A registered model is missing, damaged, or cannot be used with this release."""


class ImageError(SeqpipeError):
    """An image file that cannot be read as one. The message is the reason alone: whoever asked knows the file."""


class ImageTooLargeError(ImageError):
    """An image that would take more memory to decode than is allowed."""


class GateRefusedError(SeqpipeError):
    """The gate refused a promotion."""

    exit_code = 3
    is_of_one_seed = True


class BudgetExhaustedError(SeqpipeError):
    """`--max-time` is used up; a checkpoint is on disk, and the same command resumes."""

    exit_code = 4


class MemoryCapError(SeqpipeError):
    """The memory cap was reached, or the machine ran out of memory."""

    exit_code = 5


class MachineUnfitError(SeqpipeError):
    """This machine or cluster cannot do what was asked (no such device, not enough memory for the cap)."""

    exit_code = 6


class InterruptedRunError(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal; a checkpoint is on disk, and the same command resumes.

    Not an `Exception`, so that a library's `except Exception` cannot swallow it.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
