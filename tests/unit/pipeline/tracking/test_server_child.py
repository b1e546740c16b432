import io
from dataclasses import replace

import pytest

from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.server_child import Request, arguments_of
from pipeline.workspace.paths import Workspace


@pytest.fixture
def request_of(tmp_path):
    def made(copy=None, **environ):
        workspace = Workspace(tmp_path)
        return Request(mlflow_settings.load(workspace, environ), workspace, "127.0.0.1", 5000, copy)

    return made


@pytest.mark.parametrize("uri", ["", "postgresql://me:secret@host/db"])
@pytest.mark.parametrize("has_copy", [True, False])
def test_the_child_gets_the_request_as_it_was_sent(request_of, tmp_path, uri, has_copy):
    request = request_of(tmp_path / "copy" if has_copy else None, MLFLOW_TRACKING_URI=uri)
    pipe = io.BytesIO()
    request.send(pipe)
    pipe.seek(0)
    assert Request.receive(pipe) == request


def test_a_local_store_is_served_with_the_artifacts_beside_it(request_of, tmp_path):
    words = arguments_of(request_of())
    given = dict(zip(words[1::2], words[2::2], strict=True))
    artifacts = (tmp_path / "mlartifacts").as_uri()
    assert given == {
        "--host": "127.0.0.1",
        "--port": "5000",
        "--workers": "1",
        "--backend-store-uri": f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination": artifacts,
        "--default-artifact-root": artifacts,
    }


def test_a_registry_of_its_own_is_served_too_and_a_database_server_chooses_its_artifacts(request_of, tmp_path):
    request = request_of()
    settings = replace(request.settings, registry_uri="mysql://host/db", artifact_location=None)
    words = arguments_of(replace(request, settings=settings))
    assert words[words.index("--registry-store-uri") + 1] == "mysql://host/db"
    assert words[words.index("--artifacts-destination") + 1] == (tmp_path / "mlartifacts").as_uri()
    assert "--default-artifact-root" not in words
