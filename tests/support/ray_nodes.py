"""Named Ray nodes on this machine's loopback, with a token: a head, and others that do not see a hidden folder."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tuning.on_ray.cleanup import MARK, end_marked, marked

_ALIVE = (
    "import sys\nfrom ray._raylet import GcsClient\n"
    "print(sum(n.state == 0 for n in GcsClient(address=sys.argv[1]).get_all_node_info().values()))"
)


class Nodes:
    """Each node has one core and gives 900 MB."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "5",
            "RAY_enable_worker_prestart": "0",
        }
        self.start("A", "--head", f"--port={self.address.partition(':')[2]}", "--include-dashboard=false",
                   f"--temp-dir={folder}")  # fmt: skip

    def start(self, name: str, *arguments: str, within: tuple[str, ...] = ()) -> None:
        before = self.alive()
        subprocess.Popen(
            [*within, str(Path(sys.executable).with_name("ray")), "start", "--block", f"--node-name={name}",
             "--num-cpus=1", "--node-ip-address=127.0.0.1", "--memory=900000000", "--object-store-memory=80000000",
             *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | self.environment | {MARK: self.mark, f"{MARK}_NODE": name},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.alive() <= before:
            assert time.monotonic() < deadline, "the node did not come up"
            time.sleep(0.3)

    def add(self, name: str, hidden: Path) -> None:
        """A node that finds nothing in a folder: no disk is shared."""
        hiding = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden))
        self.start(name, f"--address={self.address}", within=hiding)

    def alive(self) -> int:
        asked = subprocess.run(
            [sys.executable, "-c", _ALIVE, self.address],
            capture_output=True, text=True, timeout=60, env=os.environ | self.environment,
        )  # fmt: skip
        return int(asked.stdout) if asked.returncode == 0 else 0

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of a node, what its workers have started included."""
        found = []
        for pid in marked(self.mark, str(self.folder / "none")):
            try:
                if psutil.Process(pid).environ().get(f"{MARK}_NODE") == name:
                    found.append(psutil.Process(pid))
            except psutil.Error:
                continue
        return found

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        for process in self.processes(name):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


@contextmanager
def nodes(folder: Path, token: str) -> Iterator[Nodes]:
    """A head, whose processes and those of all other nodes are gone afterwards."""
    made = None
    try:
        made = Nodes(folder, token)
        yield made
    finally:
        if made is not None:
            end_marked(made.mark, str(folder), spare=(os.getpid(),))
