"""Ray's processes of one node: started with a token and fixed ports, watched, and ended without a trace.

They are no children of this process' session, so that a Ctrl-C or a closed terminal ends them in order, by way of the
process that started them. Should that one be killed, a small process of `cleanup.py` ends all of theirs.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuning.cluster.node_folder import NAME_VARIABLE, RESERVE_VARIABLE, VARIABLE, NodeFolder
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.cleanup import MARK, Cleanup, marked
from tuning.on_ray.connection import PATIENCE
from tuning.on_ray.left_over import end_left_over, new_folder
from tuning.on_ray.local_ray import LEAN, OBJECT_STORE_BYTES
from tuning.on_ray.node_plan import NodePlan
from tuning.waiting import ASK_S

START_S = 60.0
_END_S = 3.0
_TOKEN = "token"
_FOLDER = "node"
_RAY = "r"
_ABSENT = (
    "grpc",  # with it Ray opens a port for remote clients, and those of its dashboards
    # `ray start` imports these without need, which takes as long as everything else that it imports
    "ray.serve.scripts",
    "ray.dashboard.modules.job.cli",
    "ray.util.state.state_cli",
)
"""Modules that are to be missing where Ray is started, as they are where Ray's extras are not installed."""
_START = f"import sys; sys.modules.update(dict.fromkeys({_ABSENT})); from ray.scripts.scripts import main; main()"
RAYLET, GCS = "raylet", "gcs_server"


@dataclass(frozen=True)
class _Process:
    kind: str
    process: psutil.Process

    @property
    def lives(self) -> bool:
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class NodeProcesses:
    """A node's processes; `end` leaves none of them, and no folder."""

    def __init__(
        self, plan: NodePlan, address: str, token: str, head: str | None, should_stop: Callable[[], bool]
    ) -> None:
        """Start them, on a node that has this address; `head` is HOST:PORT, None to start a head.

        Raises:
            ClusterError: they did not start.
            AskedToLeaveError: `should_stop` returned True meanwhile.
        """
        end_left_over()
        self._plan = plan
        self._mark = secrets.token_hex(16)
        self._folder, self._owned = new_folder(self._mark)
        self._cleanup = Cleanup(self._mark, str(self._folder))
        self.node_folder = NodeFolder(self._folder / _FOLDER)
        try:
            self.node_folder.create()
            token_file = self._folder / _TOKEN
            token_file.touch(mode=0o600)
            token_file.write_text(token)
            (self._folder / _RAY).mkdir()  # Ray opens its folder to everybody
            self._start(_command(plan, address, head, self._folder / _RAY), should_stop)
            self._processes = self._found({RAYLET} if head else {RAYLET, GCS})
        except BaseException:
            self._clean_up()
            raise

    @property
    def node_id(self) -> str:
        """Ray's id of the node."""
        words = next(each.process.cmdline() for each in self._processes if each.kind == RAYLET)
        return next(word.partition("=")[2] for word in words if word.startswith("--node_id="))

    def dead(self) -> str | None:
        """The name of a process that has ended, without which the node is none; None if all live."""
        return next((each.kind for each in self._processes if not each.lives), None)

    def end(self, *, in_order: bool = True) -> None:
        """End all of them; in order means that the head is told, so that it counts this node no longer."""
        if in_order and self.dead() is None:
            raylet = next(each.process for each in self._processes if each.kind == RAYLET)
            with contextlib.suppress(psutil.Error):
                raylet.terminate()
                psutil.wait_procs([raylet], _END_S)
        self._clean_up()

    def _clean_up(self) -> None:
        self._cleanup.end()
        self._owned.close()

    def _start(self, command: list[str], should_stop: Callable[[], bool]) -> None:
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                command,
                cwd=self._folder / _FOLDER,  # no module is found there
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as starting,
        ):
            until = time.monotonic() + START_S
            try:
                while starting.poll() is None:
                    if should_stop():
                        raise AskedToLeaveError
                    if time.monotonic() >= until:
                        raise ClusterError(f"Ray did not start within {START_S:.0f} s; close other programs")
                    time.sleep(ASK_S)
            finally:
                starting.kill()
            if starting.returncode:
                said.seek(0)
                raise ClusterError(f"Ray could not be started: {_reason(said.read().decode(errors='replace'))}")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **kept,
            **LEAN,
            **PATIENCE,
            MARK: self._mark,
            VARIABLE: str(self._folder / _FOLDER),
            NAME_VARIABLE: self._plan.name,
            RESERVE_VARIABLE: str(self._plan.reserve_mb),
            "RAY_AUTH_MODE": "token",  # without it `ray start` runs open
            "RAY_AUTH_TOKEN_PATH": str(self._folder / _TOKEN),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
        }

    def _found(self, wanted: set[str]) -> list[_Process]:
        found = []
        for pid in marked(self._mark, str(self._folder)):
            with contextlib.suppress(psutil.Error, IndexError):
                process = psutil.Process(pid)
                kind = Path(process.cmdline()[0]).name
                if kind in wanted:
                    found.append(_Process(kind, process))
        if missing := wanted - {each.kind for each in found}:
            raise ClusterError(f"Ray ended as soon as it had started ({', '.join(sorted(missing))})")
        return found


def _command(plan: NodePlan, address: str, head: str | None, folder: Path) -> list[str]:
    ports = plan.ports
    place = ["--head", f"--port={ports.gcs}", "--include-dashboard=false", "--no-monitor"]
    return [
        *[sys.executable, "-P", "-c", _START, "start"],
        *(place if head is None else [f"--address={head}"]),
        f"--node-ip-address={address}",
        f"--node-name={plan.name}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_listen}",
        f"--metrics-export-port={ports.metrics}",
        f"--min-worker-port={ports.workers.start}",
        f"--max-worker-port={ports.workers.stop - 1}",
        f"--num-cpus={plan.cores}",
        "--num-gpus=0",
        f"--memory={plan.gives_mb * 1_000_000}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={folder}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    ]


def _reason(said: str) -> str:
    """The line of a failed start that says why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "Exception" in line]
    return (errors or lines or ["no word of why"])[-1]
