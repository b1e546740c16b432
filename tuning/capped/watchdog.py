"""The watchdog: a process that measures a capped child, stops it at its limits, and leaves nothing of it running.

    caller (run_capped) -- control socket --> watchdog -- link socket --> child --> whatever the child starts
           \\-------------------- data socket: the call, messages, the value -----/

It is a process of its own, not a thread of the caller or of the child:
- nothing delays its measurements and kills: neither a caller busy in `on_message`, nor native code that holds the
  child's interpreter lock;
- on Linux it is the "subreaper" of everything below it: a process whose parent dies, whatever its session, becomes
  the watchdog's child. So it stays counted, and is found when everything is to be ended;
- it outlives both: the end of the control socket is the caller's end (by SIGKILL too). It is not the caller's
  child: a Ray worker that ends kills its own children, and nobody would be left to end the processes below.

It uses the standard library alone, without `site`: 13 MB resident, 7 of them its own, and 20 ms to start.
"""

import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

from tuning.capped.memory_usage import process_usage
from tuning.capped.process_tree import LinuxTree, is_tracker, tree_below_this_process, unlink_torch_memory

TICK_S = 0.05
SHORTEST_TICK_S = 0.005
FASTEST_MB_PER_S = 8000  # how fast a process can allocate; ticks get shorter within this times TICK_S of the cap
SLACK_MB, SLACK = 64, 0.1  # how far past the cap the kernel lets a process allocate: the larger of the two
IMPORTS_PAST_CAP_MB = 1000  # imports may pass the cap by this much, so that the caller can be told what they need
TRACKER_S = 1.0
GIVE_UP_S = 10.0
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
CHILD = "import sys; sys.path.append(sys.argv.pop(1)); from tuning.capped.child import main; main()"


class WatchOptions(NamedTuple):
    """What the caller asks for; passed as JSON in the watchdog's arguments."""

    cap_mb: float
    time_limit_s: float
    grace_s: float
    output: str | None
    floor_only: bool
    control_fd: int
    data_fd: int


class Ending(NamedTuple):
    """How the child ended; sent to the caller as JSON.

    `reason` is None if the child ended by itself, else `memory_cap`, `timed_out`, `stopped` (the grace time was
    over), `floor` (nothing more was asked for) or `cap_too_low`. `status` is an exit code, or a signal as a negative.
    """

    reason: str | None
    status: int
    floor_mb: float | None
    peak_mb: float


def main() -> None:
    """Start the child, watch it, end whatever is left, report to the caller."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the caller says when to stop; if it ends, so does this process
    options = WatchOptions(**json.loads(sys.argv.pop()))
    caller = os.getppid()
    if os.fork():
        os._exit(0)  # the caller waits for this process only
    with socket.socket(fileno=options.control_fd) as control:
        watchdog = Watchdog(options, control, caller)
        try:
            reason = watchdog.watch()
        finally:
            watchdog.kill_all()
        with contextlib.suppress(OSError):  # the caller is gone
            control.sendall(json.dumps(watchdog.ending(reason)._asdict()).encode())


class Watchdog:
    """Watches one child."""

    def __init__(self, options: WatchOptions, control: socket.socket, caller: int) -> None:
        self._options = options
        self._control = control
        self._tree = tree_below_this_process()
        self._link, childs_end = socket.socketpair()
        self._sources: list[socket.socket | int] = [control, self._link]
        self._caller: int | None = None
        if sys.platform == "linux":  # readable at the caller's end; the socket stays open if a fork of it lives on
            with contextlib.suppress(OSError):
                self._caller = os.pidfd_open(caller)
                self._sources.append(self._caller)
        self._kill_at = time.monotonic() + options.time_limit_s
        self._kill_reason = "timed_out"
        self._held_mb = self._peak_mb = self._highest_mb = 0.0
        self._floor_mb: float | None = None
        self._child = _start_child(options, childs_end)
        self._status: int | None = None

    def watch(self) -> str | None:
        """Watch the child until it ends or has to be ended; the reason for the latter."""
        reason = None
        while self._status is None and reason is None:
            readable, _, _ = select.select(self._sources, [], [], self._pause_s())
            self._measure()
            if self._link in readable:
                reason = self._on_child()
            if self._control in readable:
                reason = self._on_caller() or reason
            if self._caller in readable:
                reason = "abandoned"
            self._reap()  # may find that the child was past the cap at its end
            reason = reason or self._limit_passed()
        return reason

    def ending(self, reason: str | None) -> Ending:
        """How the child ended, after `kill_all`."""
        assert self._status is not None
        return Ending(reason, self._status, self._floor_mb, self._peak_mb)

    def kill_all(self) -> None:
        """SIGKILL everything below this process, until nothing is left to wait for.

        Trackers of shared memory get a second to end by themselves: they unlink what killed processes have left.
        Without them a killed trial's shared memory would stay taken until the machine restarts.
        """
        started = time.monotonic()
        seen: set[int] = set()
        while True:
            age_s = time.monotonic() - started
            members = set(self._tree.members())
            seen |= members
            for pid in members:
                if age_s > TRACKER_S or not is_tracker(pid):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            if self._status is None and not isinstance(self._tree, LinuxTree):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            if not self._reap() or age_s > GIVE_UP_S:  # a process may hang in the kernel, on a dead disk
                break
            time.sleep(0.002)
        unlink_torch_memory(seen)
        if self._status is None:
            self._status = -signal.SIGKILL

    def _pause_s(self) -> float:
        if self._link not in self._sources:
            return 0.001  # the child is about to end
        room_mb = self._options.cap_mb - self._held_mb if self._floor_mb is not None else math.inf
        until_kill_s = max(self._kill_at - time.monotonic(), 0)
        return min(max(room_mb / FASTEST_MB_PER_S, SHORTEST_TICK_S), TICK_S, until_kill_s)

    def _measure(self) -> None:
        usages = {pid: process_usage(pid) for pid in self._tree.members()}
        self._held_mb = sum(usage.charged_mb for usage in usages.values())
        if self._floor_mb is not None:
            self._peak_mb = max(self._peak_mb, self._held_mb)
            if self._child.pid in usages:
                self._highest_mb = max(self._highest_mb, usages[self._child.pid].highest_mb)
            self._limit({pid: usage.data_mb for pid, usage in usages.items()})

    def _limit(self, data_mb: dict[int, float]) -> None:
        """Have the kernel refuse an allocation that would take a process past the cap, before it is touched.

        The limit is on private writable memory (RLIMIT_DATA): what each process has now, plus what the tree has left.
        RLIMIT_AS will not do. Measured with torch: one training step adds 580 MB of address space (each thread's
        arena reserves 64) and 40 MB of data for 7 MB of memory; a 900 MB file mapped read-only adds 900 and 0.
        The limit is set anew at each tick: data that is reserved and never touched (8 MB of stack for each thread)
        would otherwise stay charged; this way it costs nothing after the tick that finds it.
        """
        if sys.platform != "linux":
            return
        import resource

        cap_mb = self._options.cap_mb
        room_mb = max(cap_mb - self._held_mb, 0) + max(SLACK_MB, SLACK * cap_mb)
        for pid, now_mb in data_mb.items():
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                soft = int((now_mb + room_mb) * 1e6)
                resource.prlimit(pid, resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))

    def _on_child(self) -> str | None:
        """The child reports that its imports are done, or closes the link as it ends."""
        if not _receive(self._link):
            self._sources.remove(self._link)
            return None
        self._floor_mb = self._peak_mb = self._held_mb
        if self._options.floor_only:
            return "floor"
        if self._floor_mb >= self._options.cap_mb:
            return "cap_too_low"
        self._measure()  # sets the first limit
        with contextlib.suppress(OSError):
            self._link.sendall(b"g")  # go
        return None

    def _on_caller(self) -> str | None:
        """The caller asks for an orderly stop, or is gone."""
        if not _receive(self._control):
            return "abandoned"
        if self._status is None:
            os.kill(self._child.pid, signal.SIGTERM)  # the child alone: it stops its own children
        until = time.monotonic() + self._options.grace_s
        if until < self._kill_at:
            self._kill_at, self._kill_reason = until, "stopped"
        return None

    def _limit_passed(self) -> str | None:
        if self._floor_mb is None:
            if self._held_mb > self._options.cap_mb + IMPORTS_PAST_CAP_MB:
                self._floor_mb = self._held_mb
                return "cap_too_low"
        elif self._held_mb > self._options.cap_mb:
            return "memory_cap"
        return self._kill_reason if self._status is None and time.monotonic() >= self._kill_at else None

    def _add_growth_since_last_tick(self, highest_mb: float) -> None:
        """After a crash, count what became resident since the last tick.

        Native code that does not check for a refused allocation crashes; if the tree was past the cap, the cap is
        the cause.
        """
        self._held_mb += max(highest_mb - self._highest_mb, 0)
        if self._held_mb > self._options.cap_mb:
            self._peak_mb = max(self._peak_mb, self._held_mb)

    def _reap(self) -> bool:
        """Collect the exit status of children that have ended; whether any child is left."""
        try:
            while True:
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._child.pid:
                    self._status = self._child.returncode = os.waitstatus_to_exitcode(status)
                    if -self._status in CRASHES and self._floor_mb is not None and sys.platform == "linux":
                        self._add_growth_since_last_tick(used.ru_maxrss * 1024 / 1e6)
        except ChildProcessError:
            return False


def _start_child(options: WatchOptions, childs_end: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the child in a session of its own, and close its ends of the sockets here."""
    root, numbers = str(Path(__file__).parents[2]), (options.data_fd, childs_end.fileno())
    with childs_end, contextlib.ExitStack() as stack:
        output: IO[bytes] | None = stack.enter_context(Path(options.output).open("ab")) if options.output else None
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, root, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=numbers,
            start_new_session=True,
        )
        os.close(options.data_fd)
    return child


def _receive(end: socket.socket) -> bytes:
    """The next byte; none at the end of the stream."""
    try:
        return end.recv(1)
    except ConnectionError:
        return b""
