import signal
import time

import psutil
import pytest

from pipeline import provenance


@pytest.fixture
def hanging_git(monkeypatch, tmp_path):
    """A git that waits for something else; the file that says what."""
    git, pid = tmp_path / "git", tmp_path / "pid"
    git.write_text(f"#!/bin/sh\n/bin/sleep 60 &\necho $! > {pid}\nwait\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    yield pid
    if psutil.pid_exists(int(pid.read_text())):
        psutil.Process(int(pid.read_text())).kill()


def is_gone(pid) -> bool:
    until = time.monotonic() + 5
    while psutil.pid_exists(number := int(pid.read_text())) and time.monotonic() < until:
        if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:  # nobody here buries it
            return True
        time.sleep(0.02)
    return not psutil.pid_exists(number)


def test_a_git_that_hangs_is_killed_with_its_children(monkeypatch, hanging_git):
    monkeypatch.setattr(provenance, "_GIT_S", 0.5)
    began = time.monotonic()
    assert provenance.git_commit() is None
    assert time.monotonic() - began < 5
    assert is_gone(hanging_git)


def test_an_interruption_does_not_wait_for_git(hanging_git):
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            provenance.git_commit()
    finally:
        signal.signal(signal.SIGALRM, kept)
    assert is_gone(hanging_git)
