"""When the UI's server is ready, given up or ended; with processes that are no MLflow."""

import itertools
import signal
import subprocess
import sys
import time

import psutil
import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import server_processes
from pipeline.tracking.server_processes import StopRequests, tree, watch


@pytest.fixture
def started():
    """Starts a program; what is left of it at the end is killed."""
    processes = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        processes.append(process)
        assert process.stdout.readline() == b"started\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


ASLEEP = "import time; print('started', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ASLEEP}"
PARENT = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.PIPE)"
    ".stdout.readline(); print('started', flush=True); time.sleep(60)"
)


@pytest.fixture
def answers(monkeypatch):
    """What the server answers, one after the other, the last for good; the addresses that were asked."""
    asked = []

    def give(*given):
        left = itertools.chain(given, itertools.repeat(given[-1]))
        monkeypatch.setattr(server_processes, "_answers", lambda url: asked.append(url) or next(left))
        return asked

    return give


class After(StopRequests):
    """A stop request that arrives once the server is ready."""

    def ready(self):
        self.numbers.append(signal.SIGINT)


def test_it_is_ready_once_it_answers_and_that_is_said_once(started, answers, tmp_path):
    asked = answers(False, False, True)
    requests, said = After(), []

    def ready():
        said.append(len(asked))
        requests.ready()

    server = started(ASLEEP)
    watch(server, requests, "http://here:1", ready, tmp_path / "log")
    assert said == [3]
    assert set(asked) == {"http://here:1/health"}
    assert not psutil.pid_exists(server.pid)


def test_it_is_watched_after_it_was_ready_and_not_asked_again(started, answers, tmp_path):
    asked = answers(True)
    server = started(ASLEEP)
    (tmp_path / "log").write_text("first\nthe last words  \n\n")
    with pytest.raises(TrackingError, match=r"ended by itself: the last words; its log is .*log"):
        watch(server, StopRequests(), "http://here:1", server.kill, tmp_path / "log")
    assert len(asked) == 1


def test_one_that_ends_without_a_word_is_said_too(started, answers, tmp_path):
    answers(False)
    (tmp_path / "log").touch()
    server = started("print('started', flush=True)")
    server.wait()
    with pytest.raises(TrackingError, match="ended by itself: it said nothing"):
        watch(server, StopRequests(), "http://here:1", lambda: pytest.fail("ready"), tmp_path / "log")


def test_one_that_computes_nothing_is_given_up(started, answers, tmp_path, monkeypatch):
    answers(False)
    monkeypatch.setattr(server_processes, "IDLE_S", 0.3)
    server = started(ASLEEP)
    with pytest.raises(TrackingError, match="does not answer at http://here:1"):
        watch(server, StopRequests(), "http://here:1", lambda: pytest.fail("ready"), tmp_path / "log")
    assert not psutil.pid_exists(server.pid)


def test_one_that_computes_is_given_up_at_the_deadline_alone(started, answers, tmp_path, monkeypatch):
    answers(False)
    computed = itertools.count(step=1.0)
    monkeypatch.setattr(server_processes, "_computed_s", lambda processes: next(computed))
    monkeypatch.setattr(server_processes, "IDLE_S", 0.05)
    monkeypatch.setattr(server_processes, "START_S", 0.6)
    started_at = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer"):
        watch(started(ASLEEP), StopRequests(), "http://here:1", lambda: pytest.fail("ready"), tmp_path / "log")
    assert time.monotonic() - started_at >= 0.6


def test_a_server_that_is_ready_may_compute_nothing(started, answers, tmp_path, monkeypatch):
    answers(True)
    monkeypatch.setattr(server_processes, "IDLE_S", 0.0)
    requests = StopRequests()
    looks = iter([0.0, 0.0, 0.0])

    def look(_processes):
        if (computed := next(looks, None)) is None:
            requests.numbers.append(signal.SIGINT)
        return computed or 0.0

    monkeypatch.setattr(server_processes, "_computed_s", look)
    watch(started(ASLEEP), requests, "http://here:1", lambda: None, tmp_path / "log")
    assert requests.exit_code == 0


def test_a_child_that_does_not_end_is_killed_after_the_grace_period(started, answers, tmp_path, monkeypatch):
    answers(True)
    monkeypatch.setattr(server_processes, "GRACE_S", 0.3)
    server = started(PARENT)
    [child] = tree(server.pid) - {psutil.Process(server.pid)}
    requests = After()
    watch(server, requests, "http://here:1", requests.ready, tmp_path / "log")
    child.wait(timeout=5)


def test_a_server_has_time_to_end_by_itself(started, answers, tmp_path):
    answers(True)
    done = tmp_path / "done"
    tidy = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): time.sleep(0.3); pathlib.Path({str(done)!r}).touch(); sys.exit()\n"
    )
    requests = After()
    watch(
        started(f"{tidy}signal.signal(signal.SIGTERM, end); {ASLEEP}"),
        requests, "http://here:1", requests.ready, tmp_path / "log",
    )  # fmt: skip
    assert done.exists()


def test_a_second_request_does_not_wait_for_the_grace_period(started, answers, tmp_path):
    answers(True)
    requests = After()
    server = started(STUBBORN)
    wait = server.terminate

    def terminate():
        wait()
        requests.ready()

    server.terminate = terminate
    started_at = time.monotonic()
    watch(server, requests, "http://here:1", requests.ready, tmp_path / "log")
    assert time.monotonic() - started_at < server_processes.GRACE_S
    assert server.returncode == -signal.SIGKILL


def test_ctrl_c_is_the_way_to_end_it_and_another_signal_shows_in_the_exit_code():
    assert StopRequests([signal.SIGINT, signal.SIGTERM]).exit_code == 0
    assert StopRequests([signal.SIGTERM]).exit_code == 143


def test_a_process_that_is_gone_has_no_tree(started):
    server = started("print('started', flush=True)")
    server.wait()
    assert tree(server.pid) == set()
