"""A network cable in user space, between any number of laptops: what one sends, all others receive.

    python cable.py MTU PID [PID ...]     each PID runs in the network namespace of one laptop

It makes an Ethernet device in each namespace and carries frames between them. Its standard input takes JSON, a line
a `Carries`, which holds from then on and is answered with a line; it ends with its input.
"""

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

DEVICE = "wlan0"
_NEW_NET = 0x40000000
_SET_DEVICE = 0x400454CA
_ETHERNET_WITHOUT_HEADER = 0x1002
_BUFFER_S = 0.2
"""A full radio or router drops what would wait longer."""


@dataclass(frozen=True)
class Carries:
    """How the cable is: each frame waits so long, is lost with this chance; so many megabits a second each way."""

    delay_ms: float = 0.0
    loss: float = 0.0
    mbit: float = 0.0
    """0: as fast as it comes."""
    cut: tuple[int, ...] = ()
    """The laptops whose plug is out: nothing comes through, and nobody is told."""
    calls_refused_by: tuple[int, ...] = ()
    """The laptops behind a firewall: a connection that another one opens to them is dropped."""


class Cable:
    """The running cable, as a test holds it."""

    def __init__(self, pids: Sequence[int], mtu: int) -> None:
        command = [sys.executable, "-S", __file__, str(mtu), *map(str, pids)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ends = len(pids)
        self._now = Carries()
        assert self._hear() == "ready"

    def be(self, carries: Carries) -> None:
        """Be so from now on, plugs aside."""
        self._set(**{**asdict(carries), "cut": self._now.cut})

    def cut(self, *ends: int) -> None:
        """Take the plugs of these laptops out, or all."""
        self._set(cut=ends or tuple(range(self._ends)))

    def mend(self) -> None:
        """All plugs are in."""
        self._set(cut=())

    def close(self) -> None:
        """End it; its devices go with it."""
        self._process.communicate()

    def _set(self, **changed: object) -> None:
        self._now = Carries(**{**asdict(self._now), **changed})
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(self._now)) + "\n")
        self._process.stdin.flush()
        assert self._hear() == "done"

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def cable(pids: Sequence[int], mtu: int = 1500) -> Iterator[Cable]:
    """A cable between the network namespaces that these processes run in."""
    made = Cable(pids, mtu)
    try:
        yield made
    finally:
        made.close()


class _Carrier:
    """The loop inside the process."""

    def __init__(self, devices: Sequence[int]) -> None:
        self.devices = devices
        self.carries = Carries()
        self.free_at = [0.0] * len(devices)
        self.under_way: list[tuple[float, int, int, bytes]] = []
        self.number = itertools.count()
        self.chance = random.Random(0)

    def take(self, end: int) -> None:
        """Read what a laptop sends, until it has no more."""
        for _ in range(64):
            try:
                frame = os.read(self.devices[end], 70_000)
            except BlockingIOError:
                return
            self._send(frame, end, time.monotonic())

    def _send(self, frame: bytes, end: int, now: float) -> None:
        carries = self.carries
        if end in carries.cut or self.chance.random() < carries.loss:
            return
        leaves = now
        if carries.mbit:
            begins = max(now, self.free_at[end])
            if begins - now > _BUFFER_S:
                return
            leaves = self.free_at[end] = begins + len(frame) * 8 / carries.mbit / 1e6
        for other in range(len(self.devices)):
            if other == end or (other in carries.calls_refused_by and _is_a_call(frame)):
                continue
            heapq.heappush(self.under_way, (leaves + carries.delay_ms / 1000, next(self.number), other, frame))

    def deliver(self) -> float | None:
        """Hand over what has arrived; seconds until the next arrival."""
        while self.under_way:
            wait = self.under_way[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, end, frame = heapq.heappop(self.under_way)
            if end not in self.carries.cut:
                try:
                    os.write(self.devices[end], frame)
                except OSError:  # its device is down, or full
                    continue
        return None


def _is_a_call(frame: bytes) -> bool:
    """Whether this opens a TCP connection: SYN without ACK, over IPv4."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return False
    flags = frame[14 + 4 * (frame[14] & 15) + 13]
    return bool(flags & 2) and not flags & 16


def _device(pid: int, mtu: int) -> int:
    """An Ethernet device in the network namespace of a process."""
    with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123 - a descriptor is needed
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _SET_DEVICE, struct.pack("16sH22x", DEVICE.encode(), _ETHERNET_WITHOUT_HEADER))
    subprocess.run(["ip", "link", "set", DEVICE, "mtu", str(mtu), "txqueuelen", "1000"], check=True)
    return device


def main() -> None:
    mtu, *pids = map(int, sys.argv[1:])
    carrier = _Carrier([_device(pid, mtu) for pid in pids])
    events = selectors.DefaultSelector()
    for end, device in enumerate(carrier.devices):
        events.register(device, selectors.EVENT_READ, end)
    events.register(sys.stdin, selectors.EVENT_READ, None)
    print("ready", flush=True)
    while True:
        for key, _ in events.select(carrier.deliver()):
            if key.data is not None:
                carrier.take(key.data)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            said = json.loads(line)
            carrier.carries = Carries(**{**said, "cut": tuple(said["cut"])})
            print("done", flush=True)


if __name__ == "__main__":
    main()
