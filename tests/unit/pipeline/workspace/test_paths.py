import os
from pathlib import Path

import pytest

from pipeline.errors import WorkspaceError
from pipeline.workspace.paths import Workspace


def test_the_workspace_is_the_nearest_folder_above_with_the_marker(tmp_path):
    (tmp_path / "mlflow.yaml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert Workspace.find(tmp_path / "a" / "b").root == tmp_path
    (tmp_path / "a" / "mlflow.yaml").touch()
    assert Workspace.find(tmp_path / "a" / "b").root == tmp_path / "a"


def test_without_a_marker_the_workspace_is_where_one_starts(tmp_path, monkeypatch):
    assert Workspace.find(tmp_path).root == tmp_path
    monkeypatch.chdir(tmp_path)
    assert Workspace.find().root == Path.cwd()


def test_finding_a_workspace_makes_nothing(tmp_path):
    Workspace.find(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(WorkspaceError, match="no longer exists"):
        Workspace.find()


def test_a_workspace_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / ".seqpipe").write_text("a file in the way")
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        Workspace(tmp_path).create()
    assert "\n" not in str(caught.value)


def test_a_workspace_whose_name_libraries_would_refuse_is_refused_before_any_work(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(WorkspaceError, match=r"not valid UTF-8.*rename the folder"):
        Workspace(root).create()
    assert not root.exists()


def test_everything_but_the_store_is_in_one_hidden_folder_that_may_exist(tmp_path):
    workspace = Workspace(tmp_path)
    hidden = tmp_path / ".seqpipe"
    assert workspace.hidden == hidden
    assert workspace.data == hidden / "data"
    assert workspace.predictions == hidden / "predictions"
    assert workspace.stage("train") == hidden / "stages" / "train"
    assert workspace.lock("train-f00") == hidden / "locks" / "train-f00.lock"
    for _ in range(2):
        workspace.create()
    assert list(hidden.iterdir()) == []
