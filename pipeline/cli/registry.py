"""The registry that a command works with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.cli.console import complain
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from pipeline.tracking.connection import StoreConnection


@contextmanager
def registry(*, to_write: bool = False) -> "Iterator[StoreConnection]":
    """The connection to the workspace's registry; what fails within is told in one line.

    Raises:
        ModelError: there is no store yet.
        TrackingError: the registry cannot be reached or used.
    """
    from pipeline.errors import ModelError
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.settings import require_usable
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    settings = store_of(workspace)
    if settings.is_gone and settings.registry_uri is None:
        raise ModelError("no model is registered here yet: `seqpipe run all` trains one and registers it")
    if to_write:
        require_usable(settings)
    connection = StoreConnection(settings, workspace, complain)
    with connection.explaining_to_repeat():
        yield connection
