"""What can go wrong in a search for a user: one line each, with what to do.

The caller maps the classes to its own exit codes; nothing here knows a command line.
"""


class SearchError(Exception):
    """A search that cannot be started or go on."""


class SpaceError(SearchError, ValueError):
    """A search space that cannot be used."""


class LedgerError(SearchError):
    """The record of a search cannot be read or written."""


class LedgerMismatchError(LedgerError):
    """A search folder that belongs to another search; `differing` names what is not the same."""

    def __init__(self, message: str, differing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.differing = differing


class CheckpointTransferError(SearchError):
    """A checkpoint could not be carried to or from the search folder."""


class ClusterError(SearchError):
    """The Ray cluster cannot be started or joined."""


class AskedToLeaveError(SearchError):
    """The search was asked to leave before a trial had begun; the caller, who asked, knows why."""

    def __init__(self) -> None:
        super().__init__("the search was asked to leave")


class CapDoesNotFitError(SearchError):
    """No node has the memory for one trial; `largest_mb` is the largest cap that a node could grant now."""

    def __init__(self, message: str, largest_mb: int) -> None:
        super().__init__(message)
        self.largest_mb = largest_mb


class AllTrialsFailedError(SearchError):
    """Every trial failed; the message holds the first one's error.

    `details` is its traceback where there is one; `kind` names the exception's class where no trial could start.
    """

    def __init__(self, message: str, details: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.details = details
        self.kind = kind
