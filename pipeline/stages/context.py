"""What every stage gets apart from its config and inputs."""

from dataclasses import dataclass

from pipeline.progress import Reporter
from pipeline.stop import StopToken
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class Context:
    """The workspace, what to report to, what may ask to leave, and where results are tracked."""

    workspace: Workspace
    reporter: Reporter
    stop_token: StopToken
    mlflow: ResolvedMlflow
    tracker: Tracker
