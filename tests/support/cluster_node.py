"""A head or a member in a process of its own, for tests: python cluster_node.py head|member ADDRESS BASE NAME CODE

Each event is a line of JSON; SIGTERM asks it to end.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tuning.cluster.addresses import of_this_machine
from tuning.cluster.join_code import JoinCode
from tuning.cluster.ports import Ports
from tuning.cluster.versions import Versions
from tuning.errors import ClusterError
from tuning.on_ray import head, member
from tuning.on_ray.cleanup import marked
from tuning.on_ray.node_plan import NodePlan

CODE = JoinCode("TESTTESTTESTTESTTEST0", "ABCDE")


def own_address() -> str | None:
    """An address of this machine that is not its loopback, which Ray does not take for a cluster."""
    addresses = (one.address for one in of_this_machine())
    return next((each for each in addresses if ":" not in each and not each.startswith("127.")), None)


def free_base() -> int:
    """A number at which ports begin that this process alone asks for."""
    return 8000 + os.getpid() % 90 * 220


class Node:
    """A head or a member that runs; its events so far."""

    def __init__(self, kind: str, address: str, base: int, name: str, folder: Path, code: JoinCode = CODE) -> None:
        self.base = base
        self.events: list[dict[str, Any]] = []
        command = [sys.executable, __file__, kind, address, str(base), name, str(code)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"CODE_FILE": str(folder / f"code-{name}")},
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def wait_for(self, kind: str, limit_s: float, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The event, once it has been told so many times; by default in any order with others."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            found = [
                event
                for event in list(self.events)
                if event["kind"] == kind and all(event.get(name) == value for name, value in fields.items())
            ]
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.05)
        raise AssertionError(f"no {kind} {fields} within {limit_s} s: {self.said()}")

    def count(self, kind: str) -> int:
        return sum(event["kind"] == kind for event in self.events)

    def said(self) -> list[str]:
        return [f"{event['kind']} {event.get('why', '')}" for event in self.events if event["kind"] != "Beat"]

    def ask_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(timeout=45)

    def all_processes(self) -> list[psutil.Process]:
        """Itself, its children, and Ray's processes of this node."""
        this = psutil.Process(self.process.pid)
        found = [this, *this.children()]
        mark, folder = self.mark_and_folder()
        return [*found, *(psutil.Process(pid) for pid in marked(mark, folder) if pid not in {p.pid for p in found})]

    def mark_and_folder(self) -> tuple[str, str]:
        for child in psutil.Process(self.process.pid).children():
            words = child.cmdline()
            if any(word.endswith("cleanup.py") for word in words):
                return words[-3], words[-2]
        raise AssertionError("no cleanup")

    def ray(self, program: str) -> psutil.Process:
        """Its raylet or its gcs_server."""
        return next(each for each in self.all_processes() if each.cmdline()[:1] and each.name() == program)

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reading.join(10)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))


def is_gone(processes: list[psutil.Process], folder: str, base: int, limit_s: float = 10.0) -> list[str]:
    """What is left of a node after so long: processes, its folder, ports that something listens on."""
    until, left = time.monotonic() + limit_s, ["everything"]
    while left and time.monotonic() < until:
        left = [str(each) for each in processes if _lives(each)]
        left += [folder] if Path(folder).exists() else []
        left += [f"port {port}" for port in range(base, base + 110) if _listens(port)]
        time.sleep(0.1)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError:
            return True
    return False


def main() -> None:
    kind, address, base, name, code = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    code_file = Path(os.environ["CODE_FILE"])

    def code_now() -> str:
        return code_file.read_text() if code_file.exists() else "same"

    def on_event(event: Any) -> None:
        words = dataclasses.asdict(event)
        print(json.dumps({"kind": type(event).__name__, "at": time.time(), **words}, default=str), flush=True)

    plan = NodePlan(name, Ports(int(base)), 1, 2000, 500, Versions(code="same"), {}, Path("/"), code_now)
    run = head.run if kind == "head" else member.run
    try:
        run(plan, address, JoinCode.parse(code), on_event, stop.is_set)
    except ClusterError as error:
        print(json.dumps({"kind": "ClusterError", "at": time.time(), "why": str(error)}), flush=True)
        sys.exit(6)


if __name__ == "__main__":
    main()
