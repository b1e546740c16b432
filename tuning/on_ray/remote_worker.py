"""The remote worker: runs a remote call in a capped child on its node, and brings home what that makes.

It returns how the call ended. It raises only where it cannot go on itself.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray

from tuning.capped.run_capped import Capped, CapTooLowError, run_capped
from tuning.on_ray.homeward import MessagesHome, SnapshotsHome, Stamp, stamp_of
from tuning.on_ray.leaving import Leaving
from tuning.on_ray.messages import Message
from tuning.on_ray.room_wait import wait_for_room
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
    line = _Line(home)
    with TrialRoom(job.cap_mb or _free_mb(job.reserve_mb), job.reserve_mb) as room, line.messages:
        leaving = Leaving(line, room)
        begins_with = ray.get(home.begin.remote())
        if not wait_for_room(room, line, job.node):
            return CallEnd()
        with leaving, _scratch_folder(job.shared_files.cache_folder()) as scratch:
            try:
                stamps = _fetch(begins_with, home, scratch / WORK, leaving.should_stop)
                shared = _shared_folder(job, line, leaving.should_stop)
            except _AskedMeanwhileError:
                return CallEnd(left_for_room=leaving.is_for_room)
            return _run(job, line, leaving, scratch, shared, stamps, room.cap_mb)


def _run(
    job: Job,
    line: "_Line",
    leaving: Leaving,
    scratch: Path,
    shared: Path | None,
    stamps: dict[str, Stamp],
    cap_mb: float,
) -> CallEnd:
    snapshots = SnapshotsHome(line.home, stamps)

    def on_message(message: object) -> None:
        match message:
            case Began():
                leaving.pid = message.pid
            case Said():
                line.messages.send(message)
            case SnapshotReady(folder):
                snapshots.offer(folder)

    def should_stop() -> str | None:
        if (failed := snapshots.error) is not None:
            return str(failed)
        reason = leaving.should_stop()
        if reason is not None:
            (scratch / STOP).write_text(line.stop_reason or reason, encoding="utf-8")
        return reason

    try:
        capped = run_capped(
            run_work,
            job.packed,
            scratch,
            shared,
            cap_mb,
            cap_mb=cap_mb,
            warm_up=partial(warm_up_objective, job.packed),
            on_message=on_message,
            should_stop=should_stop,
            grace_s=job.grace_s,
            on_start=leaving.on_start,
        )
    except CapTooLowError as error:
        return CallEnd(floor_mb=error.floor_mb, cap_mb=cap_mb)
    finally:
        snapshots.close()
    return CallEnd(capped, left_for_room=leaving.is_for_room, cap_mb=cap_mb, not_home=snapshots.error)


class _AskedMeanwhileError(Exception):
    """The call is to leave before it has started."""


class _Line:
    """What the worker says to home and hears from it; what waits and leaves for the search's trials uses it too."""

    def __init__(self, home: Any) -> None:
        self.home = home
        self.messages = MessagesHome(home)
        self.stop_reason = ""

    def stop_asked(self) -> bool:
        """Whether home wants the call to leave."""
        self.stop_reason = ray.get(self.home.stop_reason.remote())
        return bool(self.stop_reason)

    def report(self, message: Message) -> None:
        """What a trial would report while it waits for room."""
        self.messages.send_object(message["text"])


def _free_mb(reserve: int | None) -> float:
    """What this node has free for a call without a cap."""
    memory = psutil.virtual_memory()
    return max(1.0, memory.available / 1e6 - reserve_mb(memory.total / 1e6, reserve))


def _fetch(
    files: list[tuple[str, int]], home: Any, folder: Path, should_stop: Callable[[], str | None]
) -> dict[str, Stamp]:
    """Copy the files that the work begins with; their stamps here, by which changed ones are told."""
    folder.mkdir()
    for name, size in files:
        with (folder / name).open("wb") as file:
            while file.tell() < size:
                if should_stop() is not None:
                    raise _AskedMeanwhileError
                chunk = ray.get(home.read.remote(name, file.tell()))
                if not chunk:
                    raise OSError(f"{name} became shorter while it was sent")
                file.write(chunk)
    return {path.name: stamp_of(path) for path in plain_files(folder)}


def _shared_folder(job: Job, line: _Line, should_stop: Callable[[], str | None]) -> Path | None:
    """The folder of the files that the work reads, fetched from home if this node has not got them."""
    files = job.shared_files
    if not files.files:
        return None
    if ray.get_runtime_context().get_node_id() == job.drivers_node:
        return Path(files.folder)
    total, done = sum(file.size for file in files.files), 0

    def read(name: str, offset: int) -> bytes:
        nonlocal done
        if should_stop() is not None:
            raise _AskedMeanwhileError
        chunk = bytes(ray.get(line.home.read_shared.remote(name, offset)))
        done += len(chunk)
        line.messages.send_object(Fetched(done, total), passing=True)
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
