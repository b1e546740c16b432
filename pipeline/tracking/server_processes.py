"""The processes of the UI's server: wait until it answers, watch it, and end all of them."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from pipeline import stop
from pipeline.errors import TrackingError

START_S = 600.0
"""On a machine that is busy the start takes minutes."""
IDLE_S = 30.0
"""A server that does not answer yet and has computed nothing for so long is given up."""
GRACE_S = 5.0


@dataclass
class StopRequests:
    """The stop signals that arrived; the first asks the server to end, a second ends it at once."""

    numbers: list[int] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 after Ctrl-C, which is the way to end the UI, else 128 + the signal's number."""
        return 0 if self.numbers[0] == signal.SIGINT else 128 + self.numbers[0]


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect the stop signals (main thread only)."""
    requests = StopRequests()
    with stop.listening(lambda number, _: requests.numbers.append(number)):
        yield requests


def watch(
    server: "subprocess.Popen[bytes]",
    requests: StopRequests,
    address: str,
    on_ready: Callable[[], None],
    log_path: Path,
) -> None:
    """Watch a server until a stop request, then end all of its processes; `on_ready` is called once it answers.

    Raises:
        TrackingError: it ended by itself, or does not answer.
    """
    processes: set[psutil.Process] = set()
    try:
        _wait_for_request(server, processes, requests, address, on_ready, log_path)
    finally:
        _end(server, processes | tree(server.pid), requests)


def tree(pid: int) -> set[psutil.Process]:
    """A process and all of its descendants; empty if it is gone."""
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _wait_for_request(
    server: "subprocess.Popen[bytes]",
    processes: set[psutil.Process],
    requests: StopRequests,
    address: str,
    on_ready: Callable[[], None],
    log_path: Path,
) -> None:
    deadline = time.monotonic() + START_S
    computed_s, idle_since = 0.0, time.monotonic()
    ready = False
    while not requests.numbers:
        if server.poll() is not None:
            raise TrackingError(f"the MLflow UI ended by itself: {_last_line(log_path)}; its log is {log_path}")
        processes |= tree(server.pid)
        if not ready and _answers(f"{address}/health"):
            ready = True
            on_ready()
        if (now_s := _computed_s(processes)) > computed_s + 0.1:
            computed_s, idle_since = now_s, time.monotonic()
        if not ready and time.monotonic() > min(deadline, idle_since + IDLE_S):
            raise TrackingError(f"the MLflow UI does not answer at {address}; its log is {log_path}")
        time.sleep(0.5 if ready else 0.1)


def _end(server: "subprocess.Popen[bytes]", processes: set[psutil.Process], requests: StopRequests) -> None:
    """Ask the server to end; after a grace period, or a further stop request, kill each of its processes."""
    requests_before = len(requests.numbers)
    if server.poll() is None:
        server.terminate()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and len(requests.numbers) == requests_before:
        if not psutil.wait_procs(processes, timeout=0.1)[1]:
            break
    for process in processes | tree(server.pid):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    server.wait()
    assert server.stdin is not None
    server.stdin.close()


def _answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _computed_s(processes: set[psutil.Process]) -> float:
    """The processor time that those still alive have used."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
