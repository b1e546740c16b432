"""The MLflow store that a command works with."""

import os
from typing import TYPE_CHECKING

from pipeline.cli.console import complain

if TYPE_CHECKING:
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.workspace.paths import Workspace


def store_of(workspace: "Workspace") -> "ResolvedMlflow":
    """The MLflow settings of a workspace; addresses in a local store are updated first if it was moved or copied."""
    from pipeline.errors import SeqpipeError
    from pipeline.tracking import moved_store
    from pipeline.tracking import settings as mlflow_settings

    settings = mlflow_settings.load(workspace, os.environ)
    try:
        moved_store.update_addresses(settings, workspace, complain)
    except SeqpipeError as error:  # commands that only look go on; the store refuses those that write
        complain(f"warning: {error}")
    return settings
