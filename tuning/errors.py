"""Errors of a search that a user can cause: one line each, with what to do.

The caller maps the classes to its own exit codes; no command line is known here.
"""


class SearchError(Exception):
    """A search that cannot start or continue."""


class SpaceError(SearchError, ValueError):
    """A search space that cannot be used."""


class LedgerError(SearchError):
    """The ledger of a search cannot be read or written."""


class LedgerMismatchError(LedgerError):
    """A folder that belongs to another search; `differing` names the parts of its identity that differ."""

    def __init__(self, message: str, differing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.differing = differing


class CheckpointTransferError(SearchError):
    """A checkpoint could not be copied to or from the search folder."""


class ClusterError(SearchError):
    """The Ray cluster cannot be started or joined."""


class NodeLostError(ClusterError):
    """A node was lost in the middle of a remote call, or the process there that did the work."""


class AskedToLeaveError(SearchError):
    """The search was asked to leave before a trial had started; the caller knows why, since it asked."""

    def __init__(self) -> None:
        super().__init__("the search was asked to leave")


class CapDoesNotFitError(SearchError):
    """No node has the memory for one trial; `largest_mb` is the largest cap that a node could grant now."""

    def __init__(self, message: str, largest_mb: int) -> None:
        super().__init__(message)
        self.largest_mb = largest_mb


class AllTrialsFailedError(SearchError):
    """Every trial failed; the message contains the first one's error.

    `details` is its traceback, if there is one; `kind` is the exception's class name where no trial could start.
    """

    def __init__(self, message: str, details: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.details = details
        self.kind = kind
