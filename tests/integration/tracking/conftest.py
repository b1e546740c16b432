import pytest
from tracked_workspace import TrackedWorkspace

from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.new_store import create_store
from pipeline.workspace.paths import Workspace


@pytest.fixture(scope="session")
def made_store(tmp_path_factory):
    """A fresh store, made once: making one takes seconds."""
    workspace = Workspace(tmp_path_factory.mktemp("store"))
    create_store(mlflow_settings.load(workspace, {}), workspace)
    return workspace.root / "mlflow.db"


@pytest.fixture
def tracked(tmp_path, made_store):
    tracked = TrackedWorkspace(tmp_path / "grüße 100%", made_store)
    yield tracked
    tracked.journal.close()
