import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from pipeline import provenance


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=somebody", "-c", "user.email=s@example.org", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def other(tmp_path):
    """Somebody's repository with a commit."""
    folder = tmp_path / "other"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "theirs")
    return folder


@pytest.fixture
def installed(other, monkeypatch):
    """The package, installed below somebody's repository."""
    code = other / ".venv" / "pipeline" / "provenance.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(code))
    return code


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_the_commit_is_our_own_whatever_the_environment_names(name, other, monkeypatch):
    ours = provenance.git_commit()
    monkeypatch.setenv(name, str(other / ".git"))
    assert provenance.git_commit() == ours


def test_the_repository_that_seqpipe_is_installed_in_is_not_ours(installed):
    assert provenance.git_commit() is None


def test_the_repository_that_tracks_the_code_is_ours(other, installed):
    git(other, "add", "-f", str(installed))
    git(other, "commit", "-q", "-m", "ours")
    assert provenance.git_commit() == git(other, "rev-parse", "HEAD")
    installed.write_text("# changed")
    assert provenance.git_commit() == git(other, "rev-parse", "HEAD") + "-dirty"


def test_a_command_named_by_a_repositorys_settings_is_not_run(other, installed, tmp_path):
    git(other, "add", "-f", str(installed))
    git(other, "commit", "-q", "-m", "ours")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git(other, "config", "core.fsmonitor", str(program))
    assert provenance.git_commit() is not None
    assert not (tmp_path / "ran").exists()


def test_versions_are_those_of_the_packages_and_a_missing_one_is_not_installed(monkeypatch):
    monkeypatch.setattr(provenance, "_RECORDED", ("numpy", "no-such-package"))
    found = provenance.versions()
    assert found["numpy"] == metadata.version("numpy")
    assert found["no-such-package"] == "not installed"
    assert found["python"] == platform.python_version()
    assert set(found) == {"python", "platform", "numpy", "no-such-package"}
