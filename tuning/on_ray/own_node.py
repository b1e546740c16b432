"""This laptop's node while it runs: what its record says, and whether it is fit to take work."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tuning import machine
from tuning.cluster.fitness import unfit_because
from tuning.cluster.node_record import NodeRecord, NodeState
from tuning.on_ray.node_plan import NodePlan
from tuning.on_ray.node_processes import NodeProcesses

CODE_S = 10.0
"""How often the code is compared: every file of it is read."""


class OwnNode:
    """A node whose processes run here, under a name and an address."""

    def __init__(
        self,
        plan: NodePlan,
        address: str,
        processes: NodeProcesses,
        *,
        is_head: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.address = address
        self.processes = processes
        self.node_id = processes.node_id
        self._is_head = is_head
        self._clock = clock
        self._code_is_the_same = True
        self._code_at = clock() + CODE_S
        self._state: NodeState = "ready"
        self._why = ""

    def record(self) -> NodeRecord:
        """What the node says of itself now."""
        return NodeRecord(
            name=self.plan.name,
            address=self.address,
            node_id=self.node_id,
            is_head=self._is_head,
            cores=self.plan.cores,
            gives_mb=self.plan.gives_mb,
            reserve_mb=self.plan.reserve_mb,
            versions=self.plan.versions,
            facts=self.plan.facts,
            clock=time.time(),
            state=self._state,
            why=self._why,
            free_mb=machine.this_machine().available_bytes // 1_000_000,
            trials=self.processes.node_folder.trials(),
            turn=self.plan.ports.turn,
        )

    def trials(self) -> int:
        """How many trials run here."""
        return len(self.processes.node_folder.trials())

    def send_trials_away(self, state: NodeState, why: str) -> None:
        """Ask the trials to leave, and let none start."""
        self._state, self._why = state, why
        self.processes.node_folder.ask_to_leave(why)

    def take_work(self) -> None:
        """Let trials start again."""
        self._state, self._why = "ready", ""
        self.processes.node_folder.call_off()

    def unfit(self, clock_off_s: float = 0.0) -> str | None:
        """Why the node is not fit to take work; None if it is."""
        if self._clock() >= self._code_at:
            self._code_is_the_same = self.plan.code_now() == self.plan.versions.code
            self._code_at = self._clock() + CODE_S
        folders = (self.plan.keeps_files_in, self.processes.node_folder.path)
        return unfit_because(min(map(_free_mb, folders)), clock_off_s, self._code_is_the_same)


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1_000_000
