"""A remote call: one function runs under a memory cap on a node that is named, and its files come home.

The driver has to be joined to the cluster. What the function has there is described in `tuning.remote_work`. If its
node is lost, or this process ends, so does the call, and the files that had come home by then are there.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning.capacity import WORKER_MB
from tuning.capped.run_capped import Capped, CapTooLowError
from tuning.errors import AskedToLeaveError, ClusterError, NodeLostError
from tuning.on_ray.connection import first_line
from tuning.on_ray.head_watch import HeadWatch
from tuning.on_ray.home_folder import HomeFolder, Taken
from tuning.on_ray.remote_worker import CallEnd, Job, run_job
from tuning.on_ray.shared_files import SharedFiles, temporary_folder
from tuning.remote_work import RemoteWork
from tuning.trial import PickledObjective

LOOK_S = 0.1
HEAD_S = 1.0
"""How often the head is looked at."""
ASK_AGAIN_S = 1.0
BUSY_S = 5.0
"""After so long without a worker, the caller is told that the node is busy."""


@dataclass(frozen=True)
class RemoteCall:
    """What to run, where, with what.

    Attributes:
        function: gets a `RemoteWork`; picklable and importable, as what it returns.
        warm_up: called there before memory is limited: imports.
        node: the name of the node.
        folder: the files that the work begins with, and where those come that it makes.
        shared_files: files of one folder that the work reads; sent to a node once.
        cache_folder: called on the node, gives the folder in which it keeps them; importable.
        cap_mb: the hard cap; None for all that the node has free, apart from the reserve.
        cpus: the cores to reserve; None for all of the node's.
        grace_s: how long the function may take to leave.
    """

    function: Callable[[RemoteWork], object]
    warm_up: Callable[[], object] | None
    node: str
    folder: Path
    shared_files: Sequence[Path] = ()
    cache_folder: Callable[[], Path] = temporary_folder
    cap_mb: float | None = None
    reserve_mb: int | None = None
    cpus: float | None = None
    grace_s: float = 120.0


@dataclass(frozen=True)
class Listener:
    """What the caller hears while the call runs."""

    on_message: Callable[[object], None]
    """Gets each message, and `Fetched`; a plain text is a word of the node about its memory."""
    on_files: Callable[[], None]
    """The folder has other files than before."""
    note: Callable[[str], None]
    """Gets a line for a person."""


def run_there(
    call: RemoteCall,
    listener: Listener,
    stop_reason: Callable[[], str | None],
    clock: Callable[[], float] = time.monotonic,
) -> Capped[bytes]:
    """Run the call to its end, or until `stop_reason` has one and the work has left for it; how it ended.

    The value is what the function returned, pickled. When the node is short of memory the work leaves, and goes on as
    soon as there is room.

    Raises:
        ClusterError: no node has that name, or it has not got that memory or those cores.
        NodeLostError: the node was lost, or the process that did the work, or the head.
        CapTooLowError: the imports alone hold more than the cap.
        AskedToLeaveError: `stop_reason` had one before the work began.
        OSError: files could not be written at home.
    """
    node = node_named(call.node)
    files = SharedFiles.of(call.shared_files, call.cache_folder)
    here = ray.get_runtime_context().get_node_id()
    packed = PickledObjective.of(call.function, call.warm_up)
    job = Job(packed, call.node, files, here, call.cap_mb, call.reserve_mb, call.grace_s)
    placed = _place(call, node)
    while True:
        end = _Run(job, call.folder, here, placed, listener, stop_reason, clock).run()
        if end.not_home is not None:
            raise end.not_home
        if end.floor_mb:
            raise CapTooLowError(end.floor_mb, end.cap_mb)
        if end.left_for_room and stop_reason() is None:
            listener.note(f"{call.node} is short of memory: the work was saved, and goes on when there is room")
            continue
        if end.capped is None:
            raise AskedToLeaveError
        return end.capped


def node_named(name: str) -> dict[str, Any]:
    """The live node with that name, as Ray describes it."""
    nodes = {node["NodeName"]: node for node in ray.nodes() if node["Alive"]}
    if name not in nodes:
        known = ", ".join(sorted(nodes)) or "none"
        raise ClusterError(f"the cluster has no node named {name}; its nodes: {known}")
    return dict(nodes[name])


def _place(call: RemoteCall, node: dict[str, Any]) -> dict[str, Any]:
    """Ray's options that put the call on its node: it waits for others' work there to end."""
    has_cpus, has_mb = node["Resources"].get("CPU", 0.0), node["Resources"].get("memory", 0.0) / 1e6
    cpus = has_cpus if call.cpus is None else call.cpus
    wanted_mb = has_mb if call.cap_mb is None else call.cap_mb + WORKER_MB
    if not has_cpus or cpus > has_cpus:
        raise ClusterError(f"{call.node} gives {has_cpus:g} cores, and {cpus:g} are asked for; ask for fewer")
    if not has_mb or wanted_mb > has_mb:
        raise ClusterError(
            f"{call.node} gives {has_mb:.0f} MB, and {wanted_mb:.0f} are asked for ({WORKER_MB} of them for Ray's "
            "worker); ask for less"
        )
    return {
        "num_cpus": cpus,
        "memory": int(wanted_mb * 1e6),
        "max_retries": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    }


class _Run:
    """One start of a call on its node."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        here: str,
        placed: dict[str, Any],
        listener: Listener,
        stop_reason: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._job = job
        self._listener = listener
        self._stop_reason = stop_reason
        self._clock = clock
        self._ask_at = self._head_at = 0.0
        self._head = HeadWatch(ray.get_runtime_context().gcs_address)
        self._has_begun = False
        self._busy_at = clock() + BUSY_S
        beside = NodeAffinitySchedulingStrategy(here, soft=False)
        self._home: Any = (
            ray.remote(HomeFolder)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=beside)
            .remote(str(folder), job.shared_files.folder)
        )
        self._answer: Any = None
        self._task = ray.remote(max_calls=1)(run_job).options(**placed).remote(job, self._home)

    def run(self) -> CallEnd:
        """Watch the call until it has ended."""
        while not ray.wait([self._task], timeout=LOOK_S)[0]:
            self._look_at_head()
            self._pass_on(wait_s=0.0)
            self._ask_to_stop()
            if not self._has_begun and self._clock() >= self._busy_at:
                self._busy_at = float("inf")
                self._listener.note(f"{self._job.node} is busy: waiting for its cores or memory")
        self._pass_on(wait_s=10.0)  # what came between the last look and the end
        self._pass_on(wait_s=10.0)
        try:
            return ray.get(self._task)  # type: ignore[no-any-return]
        except ray.exceptions.RayTaskError as error:
            raise NodeLostError(f"{self._job.node} cannot go on with the work: {first_line(error.cause)}") from error
        except ray.exceptions.RayError as error:
            raise NodeLostError(
                f"{self._job.node}, or its process that did the work, was lost in the middle of it"
            ) from error

    def _look_at_head(self) -> None:
        """Leave before Ray ends this process, as it does a minute after its head was lost."""
        if self._clock() >= self._head_at:
            self._head_at = self._clock() + HEAD_S
            if not self._head.is_alive():
                raise NodeLostError("the cluster's head was lost")

    def _pass_on(self, wait_s: float) -> None:
        """Pass on what has come home; an answer that is late is looked for the next time."""
        if self._answer is None:
            self._answer = self._home.taken.remote()
        if not ray.wait([self._answer], timeout=wait_s)[0]:
            return
        answer, self._answer = self._answer, None
        taken: Taken = ray.get(answer)
        self._has_begun = self._has_begun or taken.has_begun
        for body in taken.messages:
            self._listener.on_message(pickle.loads(body))  # noqa: S301 - of our own function, by way of Ray
        if taken.has_files:
            self._listener.on_files()

    def _ask_to_stop(self) -> None:
        reason = self._stop_reason()
        if reason is None or self._clock() < self._ask_at:
            return
        if not self._has_begun:
            ray.cancel(self._task, force=False)
            raise AskedToLeaveError
        self._ask_at = self._clock() + ASK_AGAIN_S
        self._home.ask_to_stop.remote(reason)
