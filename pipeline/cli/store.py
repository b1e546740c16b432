"""The MLflow store that a command works with."""

import os
from typing import TYPE_CHECKING

from pipeline.cli.console import complain

if TYPE_CHECKING:
    from pipeline.mlflow_settings import ResolvedMlflow
    from pipeline.workspace import Workspace


def store_of(workspace: "Workspace") -> "ResolvedMlflow":
    """The MLflow settings of a workspace; where it was moved or copied, its local store follows it first."""
    from pipeline import mlflow_settings, moved_store
    from pipeline.errors import SeqpipeError

    settings = mlflow_settings.load(workspace, os.environ)
    try:
        moved_store.follow(settings, workspace, complain)
    except SeqpipeError as error:  # what only looks goes on; what writes into the store is refused by it
        complain(f"warning: {error}")
    return settings
