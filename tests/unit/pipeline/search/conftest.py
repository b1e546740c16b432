import pytest
from few_images import config_with
from offline_store import offline_tracker

from pipeline.search.store import SearchFolder
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace
from tuning.space import Space


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def tracker(workspace):
    return offline_tracker(mlflow_settings.load(workspace, {}), workspace)


@pytest.fixture
def base():
    return config_with()


@pytest.fixture
def space():
    return Space.parse({"train.learning_rate": {"uniform": [0.001, 0.01]}, "model.hidden": {"choice": [8, 16, 32]}})


@pytest.fixture
def search(workspace, base, space):
    return SearchFolder.of(workspace, base, space)
