"""The process that guards a capped child: it measures, stops and buries, and leaves nothing behind.

    caller (run_capped) -- control socket --> warden -- link socket --> child (capped_child) --> whatever that starts
           \\-------------------- data socket: the call, messages, the value --------------------/

It is a process of its own, and not a thread of the caller or of the child, because
- its clock is nobody else's: neither a caller busy in `on_message` nor native code that keeps the child's interpreter
  lock delays a measurement or a kill;
- on Linux it is the "subreaper" of all below it: a process whose parent has died, in a session of its own or not,
  becomes the warden's child, so it stays counted and is found when all is to be ended;
- it outlives both: it sees the caller's end (also by SIGKILL) as the end of the control socket. It is not the
  caller's child: a Ray worker that ends kills its own children, and nobody would be left to end those below.

It uses the standard library alone, without `site`: 13 MB resident of which 7 are its own, and 20 ms to start.
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
FASTEST_MB_PER_S = 8000  # what a process may take; nearer to the cap than this times TICK_S, looks are more frequent
SLACK_MB, SLACK = 64, 0.1  # how far past the cap the kernel lets a process allocate: the more of the two (of the cap)
IMPORTS_PAST_CAP_MB = 1000  # imports may pass the cap by this much, so that the caller can be told what they need
TRACKER_S = 1.0
GIVE_UP_S = 10.0
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
CHILD = "import sys; sys.path.append(sys.argv.pop(1)); from tuning.capped.child import main; main()"


class Orders(NamedTuple):
    """What the caller wants; travels as JSON in the warden's arguments."""

    cap_mb: float
    time_limit_s: float
    grace_s: float
    output: str | None
    floor_only: bool
    control_fd: int
    data_fd: int


class Verdict(NamedTuple):
    """How it ended; travels as JSON.

    `why` is None when the child ended by itself, else `memory_cap`, `timed_out`, `stopped` (the grace time was over),
    `floor` (which was all that was asked for) or `cap_too_low`. `status` is an exit code, or a signal as a negative.
    """

    why: str | None
    status: int
    floor_mb: float | None
    peak_mb: float


def main() -> None:
    """Start the child, guard it, end whatever is left, tell the caller."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the caller says when to stop; its end is ours
    orders = Orders(**json.loads(sys.argv.pop()))
    caller = os.getppid()
    if os.fork():
        os._exit(0)  # the caller waits for this one only
    with socket.socket(fileno=orders.control_fd) as control:
        warden = Warden(orders, control, caller)
        try:
            why = warden.watch()
        finally:
            warden.end_all()
        with contextlib.suppress(OSError):  # a caller that is gone
            control.sendall(json.dumps(warden.verdict(why)._asdict()).encode())


class Warden:
    """Guards one child."""

    def __init__(self, orders: Orders, control: socket.socket, caller: int) -> None:
        self._orders = orders
        self._control = control
        self._tree = tree_below_this_process()
        self._link, theirs = socket.socketpair()
        self._listening: list[socket.socket | int] = [control, self._link]
        self._caller: int | None = None
        if sys.platform == "linux":  # readable at its end; the socket would not tell if a fork of it lives on
            with contextlib.suppress(OSError):
                self._caller = os.pidfd_open(caller)
                self._listening.append(self._caller)
        self._killed_at = time.monotonic() + orders.time_limit_s
        self._why_killed = "timed_out"
        self._held_mb = self._peak_mb = self._highest_mb = 0.0
        self._floor_mb: float | None = None
        self._child = _start(orders, theirs)
        self._status: int | None = None

    def watch(self) -> str | None:
        """Guard the child until it ends or has to; why it has to."""
        why = None
        while self._status is None and why is None:
            readable, _, _ = select.select(self._listening, [], [], self._pause_s())
            self._measure()
            if self._link in readable:
                why = self._hear_child()
            if self._control in readable:
                why = self._hear_caller() or why
            if self._caller in readable:
                why = "abandoned"
            self._reap()  # which may find that the child was past the cap in the end
            why = why or self._past_a_limit()
        return why

    def verdict(self, why: str | None) -> Verdict:
        """How it ended, in the end."""
        assert self._status is not None
        return Verdict(why, self._status, self._floor_mb, self._peak_mb)

    def end_all(self) -> None:
        """SIGKILL everything below this process, until there is nothing left to wait for.

        The trackers of shared memory are let go last and by themselves, since they unlink what the killed have left:
        without them a killed trial's shared memory would stay taken until the machine restarts.
        """
        began = time.monotonic()
        ended: set[int] = set()
        while True:
            age_s = time.monotonic() - began
            members = set(self._tree.members())
            ended |= members
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
        unlink_torch_memory(ended)
        if self._status is None:
            self._status = -signal.SIGKILL

    def _pause_s(self) -> float:
        if self._link not in self._listening:
            return 0.001  # the child is about to end
        room_mb = self._orders.cap_mb - self._held_mb if self._floor_mb is not None else math.inf
        until_kill_s = max(self._killed_at - time.monotonic(), 0)
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
        """Let the kernel refuse what would take a process past the cap, so that a burst fails before it is touched.

        The limit is on private writable memory (RLIMIT_DATA): where each process stands, plus what the tree has left.
        RLIMIT_AS will not do. Measured with torch: one step of training adds 580 MB of address space (each thread's
        arena reserves 64) and 40 of data for 7 of memory, and a 900 MB file mapped read-only adds 900 and 0.
        It is set anew at each look and not once, since data that was reserved and never touched (8 MB of stack for
        each thread, say) would else be charged for good: set anew, it costs nothing after the look that finds it.
        """
        if sys.platform != "linux":
            return
        import resource

        cap_mb = self._orders.cap_mb
        room_mb = max(cap_mb - self._held_mb, 0) + max(SLACK_MB, SLACK * cap_mb)
        for pid, stands_at_mb in data_mb.items():
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                soft = int((stands_at_mb + room_mb) * 1e6)
                resource.prlimit(pid, resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))

    def _hear_child(self) -> str | None:
        """The child says that its imports are done, or closes the link as it ends."""
        word = _received(self._link)
        if not word:
            self._listening.remove(self._link)
            return None
        self._floor_mb = self._peak_mb = self._held_mb
        if self._orders.floor_only:
            return "floor"
        if self._floor_mb >= self._orders.cap_mb:
            return "cap_too_low"
        self._measure()  # which also sets the first limit
        with contextlib.suppress(OSError):
            self._link.sendall(b"g")
        return None

    def _hear_caller(self) -> str | None:
        """The caller asks for an orderly stop, or is gone."""
        if not _received(self._control):
            return "abandoned"
        if self._status is None:
            os.kill(self._child.pid, signal.SIGTERM)  # it alone: its own children are its to stop
        until = time.monotonic() + self._orders.grace_s
        if until < self._killed_at:
            self._killed_at, self._why_killed = until, "stopped"
        return None

    def _past_a_limit(self) -> str | None:
        if self._floor_mb is None:
            if self._held_mb > self._orders.cap_mb + IMPORTS_PAST_CAP_MB:
                self._floor_mb = self._held_mb
                return "cap_too_low"
        elif self._held_mb > self._orders.cap_mb:
            return "memory_cap"
        return self._why_killed if self._status is None and time.monotonic() >= self._killed_at else None

    def _look_back(self, highest_mb: float) -> None:
        """Native code that does not look whether it was given memory crashes when it is refused.

        That is the cap's doing, if with what became resident since the last look the tree was past it.
        """
        self._held_mb += max(highest_mb - self._highest_mb, 0)
        if self._held_mb > self._orders.cap_mb:
            self._peak_mb = max(self._peak_mb, self._held_mb)

    def _reap(self) -> bool:
        """Bury the dead; whether anyone is left."""
        try:
            while True:
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._child.pid:
                    self._status = self._child.returncode = os.waitstatus_to_exitcode(status)
                    if -self._status in CRASHES and self._floor_mb is not None and sys.platform == "linux":
                        self._look_back(used.ru_maxrss * 1024 / 1e6)
        except ChildProcessError:
            return False


def _start(orders: Orders, theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the child in a session of its own, and give its ends of the sockets away."""
    root, numbers = str(Path(__file__).parents[2]), (orders.data_fd, theirs.fileno())
    with theirs, contextlib.ExitStack() as stack:
        output: IO[bytes] | None = stack.enter_context(Path(orders.output).open("ab")) if orders.output else None
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, root, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=numbers,
            start_new_session=True,
        )
        os.close(orders.data_fd)
    return child


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(1)
    except ConnectionError:
        return b""
