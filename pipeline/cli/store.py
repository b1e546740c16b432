"""The MLflow store that a command works with."""

import os
from typing import TYPE_CHECKING

from pipeline.cli.console import complain

if TYPE_CHECKING:
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.workspace.paths import Workspace


def store_of(workspace: "Workspace") -> "ResolvedMlflow":
    """The MLflow settings of a workspace; where it was moved or copied, its local store follows it first."""
    from pipeline.errors import SeqpipeError
    from pipeline.tracking import moved_store
    from pipeline.tracking import settings as mlflow_settings

    settings = mlflow_settings.load(workspace, os.environ)
    try:
        moved_store.follow(settings, workspace, complain)
    except SeqpipeError as error:  # what only looks goes on; what writes into the store is refused by it
        complain(f"warning: {error}")
    return settings
