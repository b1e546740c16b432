"""Capacity: the memory and cores that nodes give to trials, and how many trials of which cap that holds at once.

Ray's `memory` is only a number that it schedules by. Here it stands for what a node gives to trials, so what is left
to the operating system and to Ray itself is decided in one place, before anything starts.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuning import machine
from tuning.errors import CapDoesNotFitError, ClusterError
from tuning.room import reserve_mb

WORKER_MB = 160
"""Memory of a trial's Ray worker, apart from the trial itself."""

RAY_MB = 850
"""Memory of a local Ray: its servers and agents, its object store, the checkpoint store, and the driver's libraries
(MLflow too). In searches of medium 610 to 850 were measured, counting shared memory once."""


@dataclass(frozen=True)
class Node:
    """A machine that runs trials, and what it gives to them."""

    name: str
    cpus: float
    memory_mb: int
    id: str = ""
    """Ray's: a node that was away and is back has another one."""
    why_not: str = ""
    """Why it takes no work now, as a user may read it; empty where it does."""
    facts: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    """The caller's words on what it computes with."""


@dataclass(frozen=True)
class Capacity:
    """How trials are spread over the nodes."""

    cap_mb: int
    concurrency: int
    nodes: tuple[Node, ...]
    fits: tuple[int, ...]
    """How many trials each node could hold at once."""
    cpus_per_trial: float

    @property
    def request_bytes(self) -> int:
        """Memory that Ray sets aside for one trial."""
        return (self.cap_mb + WORKER_MB) * 1_000_000


def capacity_of(
    nodes: Sequence[Node], cap_mb: int | None, concurrency: int | None, cpus_per_trial: float, least_mb: int
) -> Capacity:
    """How many trials run at once on the nodes, and under which cap; at most `concurrency`.

    Without `cap_mb` it is the largest cap at which the wanted number of trials fits: `concurrency`, or else one for
    each share of cores, but fewer where each would get less than `least_mb`.

    Raises:
        CapDoesNotFitError: no node can hold one trial.
        ClusterError: no node has the cores for one trial.
    """
    by_cpu = [0 if node.why_not else int(node.cpus / cpus_per_trial) for node in nodes]
    if not any(by_cpu):
        raise ClusterError(f"no node has the {cpus_per_trial:g} cores that one trial is to get; ask for fewer")
    wanted = min(concurrency or sum(by_cpu), sum(by_cpu))

    def fits(cap: int) -> tuple[int, ...]:
        return tuple(trials_at_once(node, cap, cpus_per_trial) for node in nodes)

    largest = max(node.memory_mb for node, cores in zip(nodes, by_cpu, strict=True) if cores) - WORKER_MB
    if largest <= 0:
        raise CapDoesNotFitError("no node has memory for a trial now; close other programs", 0)
    if cap_mb is None:
        candidates = {node.memory_mb // count - WORKER_MB for node in nodes for count in range(1, wanted + 1)}

        def largest_for(trials: int) -> int:
            return max((cap for cap in candidates if cap > 0 and sum(fits(cap)) >= trials), default=0)

        if concurrency is None:
            while wanted > 1 and largest_for(wanted) < least_mb:
                wanted -= 1
        cap_mb = largest_for(wanted) or 1
    if not any(fits(cap_mb)):
        raise CapDoesNotFitError(
            f"no node can hold a trial of {cap_mb} MB; the largest cap that fits now is {largest} MB", largest
        )
    return Capacity(cap_mb, min(wanted, sum(fits(cap_mb))), tuple(nodes), fits(cap_mb), cpus_per_trial)


def at_cap(nodes: Sequence[Node], cap_mb: int, concurrency: int | None, cpus_per_trial: float) -> Capacity:
    """How many trials of a cap that was decided run at once on the nodes; none, where none fits."""
    fits = tuple(trials_at_once(node, cap_mb, cpus_per_trial) for node in nodes)
    return Capacity(cap_mb, min(concurrency or sum(fits), sum(fits)), tuple(nodes), fits, cpus_per_trial)


def trials_at_once(node: Node, cap_mb: int, cpus_per_trial: float = 1.0) -> int:
    """How many trials a node holds, by its memory and its cores."""
    if node.why_not:
        return 0
    return max(0, min(int(node.cpus / cpus_per_trial), node.memory_mb // (cap_mb + WORKER_MB)))


def this_machine(reserve: float | None = None) -> Node:
    """What this machine can give to trials now: the available memory, less Ray's own, less a reserve for the rest.

    Raises:
        CapDoesNotFitError: the reserve that was asked for is more than the machine has.
    """
    here = machine.this_machine()
    total_mb, available_mb = here.memory_bytes // 1_000_000, here.available_bytes // 1_000_000
    if reserve is not None and reserve >= total_mb:
        raise CapDoesNotFitError(
            f"a reserve of {reserve:g} MB leaves nothing of this machine's {total_mb} MB; ask for less", 0
        )
    cores = max(1, int(here.cores))  # a trial has whole cores: on a share of one, two would only take turns
    return Node(socket.gethostname(), cores, max(0, int(available_mb - RAY_MB - reserve_mb(total_mb, reserve))))
