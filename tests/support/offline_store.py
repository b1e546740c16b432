"""A tracker whose store never answers: everything stays in the workspace, and MLflow is not imported."""

from typing import NoReturn

from pipeline.errors import TrackingError
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace


class OfflineConnection(StoreConnection):
    def client(self, *, to_write: bool = True) -> NoReturn:
        raise TrackingError("the store does not answer")


def offline_tracker(settings: ResolvedMlflow, workspace: Workspace) -> Tracker:
    tracker = Tracker(settings, workspace, lambda problem: None)
    tracker.connection = OfflineConnection(settings, workspace, lambda line: None)
    return tracker
