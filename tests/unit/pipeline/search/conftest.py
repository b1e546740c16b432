import pytest
from few_images import config_with

from pipeline.errors import TrackingError
from pipeline.search.store import SearchFolder
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import Tracker
from pipeline.workspace.paths import Workspace
from tuning.space import Space


class OfflineTracker(Tracker):
    """Its store never answers: everything stays to be delivered."""

    def connect(self):
        raise TrackingError("no store")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def tracker(workspace):
    return OfflineTracker(mlflow_settings.load(workspace, {}), workspace, lambda text: None)


@pytest.fixture
def base():
    return config_with()


@pytest.fixture
def space():
    return Space.parse({"train.learning_rate": {"uniform": [0.001, 0.01]}, "model.hidden": {"choice": [8, 16, 32]}})


@pytest.fixture
def search(workspace, base, space):
    return SearchFolder.of(workspace, base, space)
