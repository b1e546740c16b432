"""One trial, seen from its Ray worker: run the objective in a capped child, and pass on what it says.

Contract: a trial *returns* how it ended. Only a lost process raises, and only that is begun again by Ray.

The objective stays pickled here: a worker that unpickled it would hold all that it imports a second time.
"""

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil
import ray
from ray import tune

from tuning.capped.run_capped import Capped, CapTooLowError, process_memory_mb, run_capped
from tuning.errors import CheckpointTransferError
from tuning.ledger import EpochReport, Finish, Outcome
from tuning.on_ray.checkpoint_store import CHUNK_BYTES
from tuning.on_ray.shared_files import Inputs
from tuning.sampler import Mode
from tuning.trial import (
    WORK,
    Began,
    CheckpointReady,
    Packed,
    Reported,
    read_reports,
    run_objective,
    warm_up_objective,
)

_SCRATCH = "trial-"
_LEAVE_S = "120"
"""How long Ray waits for a trial that it has stopped to let go of its worker, before the next one begins there."""
ASK_S = 1.0
"""How often a trial asks whether it shall leave."""


@dataclass(frozen=True)
class Task:
    """What a supervisor is to do; travels as JSON in Ray's configuration of the trial."""

    row: int
    config: Mapping[str, Any]
    known_epochs: int
    """Up to which epoch the ledger has its figures."""


@dataclass(frozen=True)
class Terms:
    """What holds for every trial of a search."""

    mode: Mode
    cap_mb: int
    grace_s: float
    inputs: Inputs
    home: str
    """Ray's id of the driver's node, where the inputs are."""


class LostTrialError(Exception):
    """The trial's process was killed from outside: Ray begins it again."""


def supervise(task: Task, objective: Packed, terms: Terms, keeper: Any) -> None:
    """Run one row to its end; everything is said through `ray.tune.report`."""
    began = time.monotonic()
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _LEAVE_S
    node = socket.gethostname()
    carrier = _Carrier(keeper, task.row)
    carrier.say({"kind": "started", "node": node})
    if carrier.stop_asked():
        carrier.say({"kind": "paused"})
        return
    scratch = _scratch()
    try:
        carrier.fetch(scratch)
        best = _Best(terms.mode)
        for report in read_reports(scratch):
            best.see(report)
            if report.epoch > task.known_epochs:  # reported to a driver that was gone before it could write it down
                carrier.report(report)
        finish = _run(task, objective, terms, scratch, carrier.inputs(terms), carrier, best)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if finish is None:
        carrier.say({"kind": "paused"})
        return
    carrier.say(
        {
            "kind": "finished",
            "finish": asdict(finish) | {"node": node, "duration_s": round(time.monotonic() - began, 3)},
        }
    )


def _scratch() -> Path:
    """A folder for the trial's files in the one that Ray gives it; those of killed supervisors are deleted."""
    for left in Path.cwd().parent.glob(f"*/{_SCRATCH}*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=Path.cwd()))


class _Best:
    """The best value so far, and how many epochs there were."""

    def __init__(self, mode: Mode) -> None:
        self._better = max if mode == "max" else min
        self.value: float | None = None
        self.epochs = 0

    def see(self, report: EpochReport) -> None:
        self.value = report.value if self.value is None else self._better(self.value, report.value)
        self.epochs = max(self.epochs, report.epoch)


class _Carrier:
    """One attempt at a row: carries its checkpoints to and from the keeper, and its messages to the driver."""

    def __init__(self, keeper: Any, row: int) -> None:
        self._keeper = keeper
        self._row = row
        self._attempt: int = ray.get(keeper.begin.remote(row))

    def fetch(self, scratch: Path) -> None:
        newest = ray.get(self._keeper.newest.remote(self._row))
        (scratch / WORK).mkdir()
        if newest is None:
            return
        version, files = newest
        for name, size in files:
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while file.tell() < size:
                    chunk = ray.get(self._keeper.read.remote(self._row, version, name, file.tell()))
                    if not chunk:
                        raise CheckpointTransferError(f"{name} of row {self._row} ends before its size")
                    file.write(chunk)

    def inputs(self, terms: Terms) -> Path | None:
        """The folder of what every trial reads, on this node."""
        if not terms.inputs.files:
            return None
        if ray.get_runtime_context().get_node_id() == terms.home:
            return Path(terms.inputs.folder)
        return terms.inputs.fetch(lambda name, offset: bytes(ray.get(self._keeper.read_input.remote(name, offset))))

    def send(self, checkpoint: Path) -> None:
        version = ray.get(self._keeper.open.remote(self._row, self._attempt))
        try:
            for path in sorted(each for each in checkpoint.rglob("*") if each.is_file()):
                name = path.relative_to(checkpoint).as_posix()
                with path.open("rb") as file:
                    offset = 0
                    while (chunk := file.read(CHUNK_BYTES)) or not offset:  # an empty file is sent too
                        self._call("write", version, name, offset, chunk)
                        offset += len(chunk)
                        if not chunk:
                            break
            self._call("commit", version)
        except Exception:
            ray.get(self._keeper.abandon.remote(self._row, version))
            raise

    def report(self, report: EpochReport) -> None:
        self.say({"kind": "report", "report": asdict(report)}, report.epoch, report.value)

    def say(self, message: dict[str, Any], epoch: int = 0, value: float = float("nan")) -> None:
        # Ray's schedulers look at epoch and value; NaN says that this is no epoch
        tune.report({"epoch": epoch, "value": value, "message": message | {"attempt": self._attempt}})

    def stop_asked(self) -> bool:
        return bool(ray.get(self._keeper.stop_asked.remote()))

    def _call(self, method: str, *arguments: Any) -> None:
        ray.get(getattr(self._keeper, method).remote(self._row, self._attempt, *arguments))


class _Conversation:
    """What the child says, and what it is asked; called by `run_capped`, in its thread."""

    def __init__(self, carrier: _Carrier, best: _Best) -> None:
        self._carrier = carrier
        self._best = best
        self._pid: int | None = None
        self._peak_mb = 0.0  # so far, of the one process; the guard tells the tree's peak only in the end
        self._stop = threading.Event()
        self._over = threading.Event()
        threading.Thread(target=self._listen, name="stop", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()  # the worker goes on, with another trial

    def hear(self, message: object) -> None:
        """Pass a message on."""
        match message:
            case Began():
                self._pid = message.pid
            case Reported(report):
                self._best.see(report)
                self._measure()
                self._carrier.report(replace(report, peak_mb=self._peak_mb))
            case CheckpointReady(folder):
                self._send(folder)

    def should_stop(self) -> str | None:
        """Asked some twenty times a second."""
        self._measure()
        return "the search leaves" if self._stop.is_set() else None

    def _measure(self) -> None:
        if self._pid is not None:
            self._peak_mb = max(self._peak_mb, process_memory_mb(self._pid))

    def _listen(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # the search has ended, and so will this process
            while not self._carrier.stop_asked():
                if self._over.wait(ASK_S):
                    return
            self._stop.set()

    def _send(self, folder: Path) -> None:
        try:
            self._carrier.send(folder)
        except ray.exceptions.RayTaskError as error:  # a full disk: the trial is worth more than its checkpoint
            self._carrier.say({"kind": "note", "text": f"a checkpoint was not kept: {error.cause}"})
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _run(
    task: Task, objective: Packed, terms: Terms, scratch: Path, inputs: Path | None, carrier: _Carrier, best: _Best
) -> Finish | None:
    try:
        with _Conversation(carrier, best) as conversation:
            result = run_capped(
                run_objective,
                objective,
                dict(task.config),
                scratch,
                inputs,
                cap_mb=terms.cap_mb,
                warm_up=partial(warm_up_objective, objective),
                on_message=conversation.hear,
                should_stop=conversation.should_stop,
                grace_s=terms.grace_s,
            )
    except CapTooLowError as error:  # on a node whose imports take more than those of the driver's
        return Finish("memory_cap", peak_mb=error.floor_mb, cap_mb=terms.cap_mb)
    return _finish(result, terms, best)


def _finish(result: Capped[str], terms: Terms, best: _Best) -> Finish | None:
    def ended(outcome: Outcome, value: float | None = None, error: str = "", details: str = "") -> Finish:
        return Finish(outcome, value, result.peak_mb, terms.cap_mb, epochs=best.epochs, error=error, details=details)

    match result.outcome:
        case "completed" if result.value == "completed" and best.value is None:
            return ended("failed", error="the objective reported nothing")
        case "completed" if result.value == "completed":
            return ended("completed", best.value)
        case "completed" if result.value == "paused":
            return None
        case "completed":
            return ended("diverged", error=str(result.value))
        case "memory_cap":
            return ended("memory_cap", error=result.error or "")
        case "failed":
            return ended("failed", error=result.error or "", details=result.traceback or "")
        case _ if result.stop_reason is not None:
            return None  # it did not leave in time; its last checkpoint is what goes on
        case _:
            raise LostTrialError(result.error or "no word of why")
