"""Laptops without a shared disk, joined by a cable that a test cuts, slows and mends."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cable as user_space
from laptop import Laptop

NETWORK = "10.77.0"


class Wire:
    """A veth pair: as fast as the kernel, and its ends see when it is cut."""

    def __init__(self, one: Laptop, other: Laptop) -> None:
        self._end = one
        pair = ["ip", "link", "add", user_space.DEVICE, "netns", str(one.init), "type", "veth", "peer", "name"]
        subprocess.run([*pair, user_space.DEVICE, "netns", str(other.init)], check=True)

    def cut(self) -> None:
        self._set("down")

    def mend(self) -> None:
        self._set("up")

    def _set(self, state: str) -> None:
        command = ["nsenter", "--target", str(self._end.init), "--net", "ip", "link", "set", user_space.DEVICE, state]
        subprocess.run(command, check=True)


@dataclass(frozen=True)
class Laptops:
    """The laptops and what joins them; by their names in the order that they were made: a, b, c."""

    all: tuple[Laptop, ...]
    cable: user_space.Cable | None = None
    wire: Wire | None = None

    @property
    def a(self) -> Laptop:
        return self.all[0]

    @property
    def b(self) -> Laptop:
        return self.all[1]

    @property
    def radio(self) -> user_space.Cable:
        """The cable, where one can be slowed and cut unnoticed."""
        assert self.cable is not None
        return self.cable


@contextmanager
def laptops(
    folder: Path,
    count: int = 2,
    *,
    wired: bool = False,
    mtu: int = 1500,
    disk: str = "2g",
    cores: tuple[int | None, ...] = (None,) * 26,
) -> Iterator[Laptops]:
    """laptop-a, laptop-b, ... at 10.77.0.1, 10.77.0.2, ...; `wired` joins two of them by a veth pair."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            laptop = Laptop(f"laptop-{chr(ord('a') + number)}", folder, disk, cores[number])
            stack.callback(laptop.scrap)
            made.append(laptop)
        if wired:
            joined = Laptops(tuple(made), wire=Wire(*made))
        else:
            held = stack.enter_context(user_space.cable([laptop.init for laptop in made], mtu))
            joined = Laptops(tuple(made), cable=held)
        for number, laptop in enumerate(made, start=1):
            laptop.plug_in(user_space.DEVICE, f"{NETWORK}.{number}")
        yield joined
