import subprocess
import sys
import threading

import pytest

from pipeline.workspace import locks
from pipeline.workspace.locks import exclusive, if_free, is_held

HOLDER = """
import sys
from pathlib import Path
from pipeline.workspace.locks import exclusive

with exclusive(Path(sys.argv[1]), print, what="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until it is let go of."""
    path = tmp_path / "locks" / "train.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_who_waits_for_a_lock_is_told_who_holds_it_and_gets_it_when_it_is_let_go(holder):
    path, process = holder
    assert is_held(path)
    told = []

    def let_go(text: str) -> None:
        told.append(text)
        threading.Timer(0.1, process.stdin.close).start()

    with exclusive(path, let_go, what="train 0f"):
        assert is_held(path)
    assert len(told) == 1
    assert told[0].startswith(f"waiting for train 0f: held by process {process.pid} since ")
    assert not is_held(path)


def test_who_waits_for_a_lock_may_give_up(holder, monkeypatch):
    path, _ = holder
    monkeypatch.setattr(locks, "WAIT_S", 0.01)
    asked = []

    def ask() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), exclusive(path, lambda text: None, what="it", while_waiting=ask):
        pytest.fail("got a lock that another process holds")
    assert len(asked) == 3
    assert is_held(path)


def test_a_lock_is_taken_only_if_nobody_holds_it(holder, tmp_path):
    path, _ = holder
    with if_free(path) as free:
        assert not free
    other = tmp_path / "other.lock"
    with exclusive(other, print, what="it"):
        pass
    with if_free(other) as free:
        assert free
        assert is_held(other)
    assert not is_held(other)


def test_a_lock_is_free_once_its_holder_was_killed(holder):
    path, process = holder
    process.kill()
    process.wait()
    assert not is_held(path)
    told = []
    with exclusive(path, told.append, what="train 0f"):
        pass
    assert told == []


def test_a_lock_is_let_go_after_an_error(tmp_path):
    path = tmp_path / "a.lock"

    def fail() -> None:
        with exclusive(path, print, what="it"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not is_held(path)


def test_asking_for_a_lock_that_never_was_makes_no_file(tmp_path):
    assert not is_held(tmp_path / "never.lock")
    assert list(tmp_path.iterdir()) == []
