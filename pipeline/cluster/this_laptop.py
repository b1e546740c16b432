"""What this laptop brings into a cluster: its versions, what it computes with, and what it gives to trials."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import pipeline
import sequencer_models
import tuning
from pipeline.errors import MachineUnfitError
from sequencer_models.cache_folder import cache_folder
from tuning import capacity
from tuning.cluster import ports, versions
from tuning.cluster.node_record import NodeRecord
from tuning.cluster.ports import Ports
from tuning.errors import ClusterError
from tuning.machine import this_machine
from tuning.room import reserve_mb

if TYPE_CHECKING:
    from tuning.on_ray.node_plan import NodePlan

PACKAGES = tuple(Path(package.__path__[0]) for package in (pipeline, sequencer_models, tuning))
_FACTS = "pipeline.training.node_facts"
_FACTS_S = 120.0
"""The first time the LSTM kernel is built, and the machine measured."""


class Facts:
    """What this laptop computes with, asked of a child process that starts at once and ends with the context."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", _FACTS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ.copy(),
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent
        )

    def __enter__(self) -> "Facts":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def result(self) -> Mapping[str, str]:
        """Wait for the answer.

        Raises:
            MachineUnfitError: no training runs on this laptop.
        """
        said, complaint = "", f"no answer within {_FACTS_S:.0f} s"
        with suppress(subprocess.TimeoutExpired):
            said, complained = self._child.communicate(timeout=_FACTS_S)
            complaint = (complained.strip().splitlines() or [f"exit code {self._child.returncode}"])[-1]
        with suppress(ValueError):
            facts: dict[str, str] = json.loads(said)
            return facts
        raise MachineUnfitError(f"no training can run on this laptop: {complaint}; `seqpipe doctor` checks it")


def plan(name: str, wanted: Ports, reserve: int | None, facts: Mapping[str, str]) -> "NodePlan":
    """What the node of this laptop is to give.

    Raises:
        CapDoesNotFitError: the reserve is more than the laptop has.
    """
    from tuning.on_ray.node_plan import NodePlan

    gives = capacity.this_machine(reserve)
    return NodePlan(
        name=name,
        ports=wanted,
        cores=int(gives.cpus),
        gives_mb=gives.memory_mb,
        reserve_mb=int(reserve_mb(this_machine().memory_bytes / 1e6, reserve)),
        versions=versions.of_this_machine(PACKAGES),
        facts=facts,
        keeps_files_in=keeps_files_in(),
        code_now=lambda: versions.code_of(PACKAGES),
    )


def require_free(wanted: Ports, *, is_head: bool) -> None:
    """Raise `MachineUnfitError` if something else has one of the ports."""
    try:
        ports.require_free(wanted, is_head=is_head)
    except ClusterError as error:
        raise MachineUnfitError(f"{error} (--port NUMBER)") from error


def record(plan: "NodePlan", address: str) -> NodeRecord:
    """What the node will say of itself, before it has joined."""
    return NodeRecord(
        name=plan.name,
        address=address,
        cores=plan.cores,
        gives_mb=plan.gives_mb,
        reserve_mb=plan.reserve_mb,
        versions=plan.versions,
        facts=plan.facts,
        clock=time.time(),
        free_mb=this_machine().available_bytes // 1_000_000,
    )


def keeps_files_in() -> Path:
    """Where a node keeps what it gets from the head: the cache folder, or what there is of its path."""
    folder = cache_folder()
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def disk_free_mb() -> float:
    """What is free for that."""
    return float(psutil.disk_usage(str(keeps_files_in())).free / 1e6)
