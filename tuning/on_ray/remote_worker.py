"""The remote worker: runs a remote call in a capped child on its node, and brings home what that makes.

It returns how the call ended. It raises only where it cannot go on itself.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray

from tuning.capped.run_capped import Capped, CapTooLowError, run_capped
from tuning.cluster.node_folder import NodeFolder
from tuning.cluster.node_record import TrialOnNode
from tuning.on_ray.homeward import MessagesHome, SnapshotsHome, Stamp, stamp_of
from tuning.on_ray.remote_stay import Stay
from tuning.on_ray.shared_files import SharedFiles
from tuning.remote_work import STOP, WORK, Fetched, Said, SnapshotReady, plain_files, run_work
from tuning.room import reserve_mb
from tuning.trial import Began, PickledObjective, warm_up_objective
from tuning.trial_room import TrialRoom

_SCRATCH = "remote-"


@dataclass(frozen=True)
class Job:
    """A call that is sent to another node."""

    packed: PickledObjective
    node: str
    shared_files: SharedFiles
    drivers_node: str
    """Ray's id of the node that has the shared files."""
    cap_mb: float | None
    """None: all that its node has free, apart from a reserve."""
    reserve_mb: int | None
    grace_s: float


@dataclass(frozen=True)
class CallEnd:
    """How a remote call ended."""

    capped: Capped[bytes] | None = None
    """None if it was not started."""
    left_for_room: bool = False
    """Its node was short of memory: it goes on when there is room."""
    floor_mb: float = 0.0
    """Where the cap is too low: what the imports alone hold."""
    cap_mb: float = 0.0
    not_home: OSError | None = None
    """Why files could not be written at home, which ended it."""


def run_job(job: Job, home: Any) -> CallEnd:
    """Run the call with the files from home, until it has ended and all of its files are home."""
    node = NodeFolder.of_environment()
    with (
        TrialRoom(job.cap_mb or _free_mb(job.reserve_mb), job.reserve_mb) as room,
        MessagesHome(home) as messages,
        Stay(home, room, node) as stay,
    ):
        begins_with = ray.get(home.begin.remote())
        if not stay.wait_for_room(messages.send_object, job.node):
            return CallEnd()
        with _scratch_folder(job.shared_files.cache_folder()) as scratch:
            try:
                stamps = _fetch(begins_with, home, scratch / WORK, stay)
                shared = _shared_folder(job, home, messages, stay)
            except _LeftError:
                return CallEnd(left_for_room=stay.is_for_room)
            worker = _Worker(job, home, node, messages, stay, room.cap_mb, scratch)
            try:
                return worker.run(shared, stamps)
            finally:
                if node is not None:
                    node.remove_trial()


class _Worker:
    """Runs the function, and passes on what it says."""

    def __init__(
        self,
        job: Job,
        home: Any,
        node: NodeFolder | None,
        messages: MessagesHome,
        stay: Stay,
        cap_mb: float,
        scratch: Path,
    ) -> None:
        self._job = job
        self._home = home
        self._node = node
        self._messages = messages
        self._stay = stay
        self._cap_mb = cap_mb
        self._scratch = scratch

    def run(self, shared: Path | None, stamps: dict[str, Stamp]) -> CallEnd:
        """Run it to its end; `stamps` are those of the files that home has."""
        self._snapshots = SnapshotsHome(self._home, stamps)
        try:
            capped = run_capped(
                run_work,
                self._job.packed,
                self._scratch,
                shared,
                self._cap_mb,
                cap_mb=self._cap_mb,
                warm_up=partial(warm_up_objective, self._job.packed),
                on_message=self._on_message,
                should_stop=self._should_stop,
                grace_s=self._job.grace_s,
                on_start=self._stay.on_start,
            )
        except CapTooLowError as error:
            return CallEnd(floor_mb=error.floor_mb, cap_mb=self._cap_mb)
        finally:
            self._snapshots.close()
        return CallEnd(capped, self._stay.is_for_room, cap_mb=self._cap_mb, not_home=self._snapshots.error)

    def _on_message(self, message: object) -> None:
        match message:
            case Began():
                self._stay.pid = message.pid
            case Said():
                self._messages.send(message)
            case SnapshotReady(folder):
                self._snapshots.offer(folder)
            case TrialOnNode() if self._node is not None:
                now = replace(message, held_mb=self._stay.held_mb, cap_mb=self._cap_mb)
                with contextlib.suppress(OSError):  # the node's status lacks it
                    self._node.write_trial(now)

    def _should_stop(self) -> str | None:
        if self._snapshots.error is not None:
            return str(self._snapshots.error)
        why = self._stay.why_leave()
        if why is not None:
            (self._scratch / STOP).write_text(why, encoding="utf-8")
        return why


class _LeftError(Exception):
    """The call is to leave before it has started."""


def _free_mb(reserve: int | None) -> float:
    """What this node has free for a call without a cap."""
    memory = psutil.virtual_memory()
    return max(1.0, memory.available / 1e6 - reserve_mb(memory.total / 1e6, reserve))


def _fetch(files: list[tuple[str, int]], home: Any, folder: Path, stay: Stay) -> dict[str, Stamp]:
    """Copy the files that the work begins with; their stamps here, by which changed ones are told."""
    folder.mkdir()
    for name, size in files:
        with (folder / name).open("wb") as file:
            while file.tell() < size:
                if stay.why_leave() is not None:
                    raise _LeftError
                chunk = ray.get(home.read.remote(name, file.tell()))
                if not chunk:
                    raise OSError(f"{name} became shorter while it was sent")
                file.write(chunk)
    return {path.name: stamp_of(path) for path in plain_files(folder)}


def _shared_folder(job: Job, home: Any, messages: MessagesHome, stay: Stay) -> Path | None:
    """The folder of the files that the work reads, fetched from home if this node has not got them."""
    files = job.shared_files
    if not files.files:
        return None
    if ray.get_runtime_context().get_node_id() == job.drivers_node:
        return Path(files.folder)
    total, done = sum(file.size for file in files.files), 0

    def read(name: str, offset: int) -> bytes:
        nonlocal done
        if stay.why_leave() is not None:
            raise _LeftError
        chunk = bytes(ray.get(home.read_shared.remote(name, offset)))
        done += len(chunk)
        messages.send_object(Fetched(done, total), passing=True)
        return chunk

    return files.fetch(read)


@contextmanager
def _scratch_folder(cache: Path) -> Iterator[Path]:
    """A folder on disk for the call's files; those of killed workers are deleted."""
    cache.mkdir(parents=True, exist_ok=True)
    for leftover in cache.glob(f"{_SCRATCH}*"):
        if not psutil.pid_exists(int(leftover.name.split("-")[1])):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
