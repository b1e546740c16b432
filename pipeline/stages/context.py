"""What every stage is handed beside its config and inputs."""

from dataclasses import dataclass

from pipeline.interrupts import Control
from pipeline.mlflow_settings import ResolvedMlflow
from pipeline.reporting import Reporter
from pipeline.tracking import Tracker
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Context:
    """The workspace, who watches, who may ask to leave, and where results are tracked."""

    workspace: Workspace
    reporter: Reporter
    control: Control
    mlflow: ResolvedMlflow
    tracker: Tracker
