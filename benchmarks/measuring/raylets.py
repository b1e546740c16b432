"""Ray nodes on this machine that no search has started, each with one core."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuning.on_ray.cleanup import MARK, end_marked

RAY = str(Path(sys.executable).with_name("ray"))
COUNT = """
import sys
from ray._raylet import GcsClient
print(sum(node.state == 0 for node in GcsClient(address=sys.argv[1]).get_all_node_info().values()))
"""


@contextmanager
def raylets(count: int, memory_mb: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a cluster of `count` nodes, and the environment that a driver needs to be let in."""
    mark = os.urandom(16).hex()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": mark,
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a unix socket's path is short
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    processes = []
    try:
        for number in range(count):
            processes.append(
                subprocess.Popen(
                    [RAY, "start", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
                    + [f"--memory={memory_mb}000000", "--object-store-memory=80000000"]
                    + (head if number == 0 else [f"--address={address}"]),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | environment | {MARK: mark},
                )
            )
            _wait_for(number + 1, address, environment)
        yield address, environment
    finally:
        end_marked(mark, folder)
        for process in processes:
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(count: int, address: str, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        asked = subprocess.run(
            [sys.executable, "-c", COUNT, address],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
        )
        if asked.returncode == 0 and int(asked.stdout) >= count:
            return
        time.sleep(0.5)
    raise RuntimeError(f"{count} nodes did not come up within a minute")
