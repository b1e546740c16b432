"""The MLflow store that a command works with."""

import os
from typing import TYPE_CHECKING

from pipeline.cli.console import complain

if TYPE_CHECKING:
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.workspace.paths import Workspace


def store_of(workspace: "Workspace", *, dry_run: bool = False) -> "ResolvedMlflow":
    """The MLflow settings of a workspace. Addresses in a local store of a moved workspace are updated first.

    A `dry_run` leaves the store as it is.
    """
    from pipeline.errors import SeqpipeError
    from pipeline.tracking import moved_store
    from pipeline.tracking import settings as mlflow_settings

    settings = mlflow_settings.load(workspace, os.environ)
    if dry_run:
        return settings
    try:
        moved_store.update_addresses(settings, workspace, complain)
    except SeqpipeError as error:  # a command that only reads goes on; the store refuses those that write
        complain(f"warning: {error}")
    return settings
