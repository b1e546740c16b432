"""The removal of what the retention rule does not keep."""

import pytest

from pipeline.errors import TrackingError
from pipeline.maintenance import gc, retention
from pipeline.maintenance.retention import Decision
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def settings(workspace):
    return mlflow_settings.load(workspace, {})


@pytest.fixture
def decided(workspace, monkeypatch):
    """A folder and a file that can be removed, and one that is kept; `asked` is what the registry answered."""
    (workspace.root / "old").mkdir()
    (workspace.root / "old" / "file").write_bytes(b"x")
    for name in ("torn.tmp", "kept"):
        (workspace.root / name).write_bytes(b"x")
    decisions = [
        Decision("train", workspace.root / "old", 5, True, "superseded", workspace.lock("train-old")),
        Decision("torn file", workspace.root / "torn.tmp", 2, True, "left"),
        Decision("train", workspace.root / "kept", 9, False, "the newest"),
    ]
    asked = []

    def decide(workspace, address, registered_keys):
        asked.append(registered_keys())
        return decisions

    monkeypatch.setattr(retention, "decide", decide)
    return decisions, asked


def left(workspace):
    return sorted(path.name for path in workspace.root.iterdir() if not path.name.startswith("."))


def test_a_dry_run_removes_nothing_and_says_what_would_go(workspace, settings, decided):
    collected = gc.collect(workspace, settings, print, dry_run=True)
    assert left(workspace) == ["kept", "old", "torn.tmp"]
    assert (list(collected.removed), collected.bytes) == (decided[0][:2], 7)
    assert collected.decisions == decided[0]


def test_what_is_removable_is_removed_folders_and_files(workspace, settings, decided):
    collected = gc.collect(workspace, settings, print, dry_run=False)
    assert left(workspace) == ["kept"]
    assert (list(collected.removed), collected.bytes) == (decided[0][:2], 7)


def test_what_is_in_use_by_now_stays_and_does_not_count_as_removed(workspace, settings, decided):
    with exclusive(workspace.lock("train-old"), print, what="it"):
        collected = gc.collect(workspace, settings, print, dry_run=False)
    assert left(workspace) == ["kept", "old"]
    assert collected.bytes == 2


def test_a_file_that_is_gone_already_is_no_failure(workspace, settings, decided):
    (workspace.root / "torn.tmp").unlink()
    gc.collect(workspace, settings, print, dry_run=False)
    assert left(workspace) == ["kept"]


def test_the_registry_is_asked_for_what_was_registered(workspace, settings, decided, monkeypatch):
    monkeypatch.setattr(gc, "registered_run_keys", lambda connection: frozenset({"k1"}))
    gc.collect(workspace, settings, pytest.fail, dry_run=True)
    assert decided[1] == [frozenset({"k1"})]


def test_a_registry_that_cannot_be_asked_is_one_line_and_answers_nothing(workspace, settings, decided, monkeypatch):
    def fail(connection):
        raise TrackingError("away")

    lines = []
    monkeypatch.setattr(gc, "registered_run_keys", fail)
    gc.collect(workspace, settings, lines.append, dry_run=True)
    assert decided[1] == [None]
    assert lines == ["the registry cannot be asked (away); what may be registered stays"]
