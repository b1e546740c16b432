"""What every stage gets apart from its config and inputs."""

from dataclasses import dataclass, field

from pipeline.progress import Reporter
from pipeline.stop import StopToken
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class TrainingNode:
    """The laptop of the cluster that trainings are sent to."""

    name: str
    address: str
    """Of the cluster's head."""
    token: str = field(repr=False)


@dataclass(frozen=True)
class Context:
    """The workspace, what to report to, what may ask to leave, and where results are tracked."""

    workspace: Workspace
    reporter: Reporter
    stop_token: StopToken
    mlflow: ResolvedMlflow
    tracker: Tracker
    node: TrainingNode | None = None
    """Where trainings run; None for here."""
    parent_run: str = ""
    """The key of the MLflow run that trainings are shown under; empty for none."""
