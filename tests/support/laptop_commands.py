"""Commands that run on a laptop of namespaces, and the terminal windows that they run in."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from product import Done


class Command:
    """A command that runs on a laptop; what it says goes to files."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err
        self._began = time.monotonic()
        self._pid = 0

    @property
    def words(self) -> list[str]:
        """What was typed."""
        words = list(map(str, self.process.args))  # type: ignore[arg-type]
        return words[words.index("-c", words.index("--pid")) + 3 :]

    @property
    def pid(self) -> int:
        """Its own, as this machine numbers processes; `process` is the one that brought it onto the laptop."""
        until = time.monotonic() + 5
        while not self._pid and time.monotonic() < until:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._pid = next((child.pid for child in psutil.Process(self.process.pid).children()), 0)
            if not self._pid and self.process.poll() is not None:
                raise ProcessLookupError(f"ended with {self.process.returncode}: {self.err}")
            time.sleep(0.01)
        return self._pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def send(self, number: int) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self.process.poll()

    def wait(self, timeout_s: float = 60) -> Done:
        """Its end."""
        code = self.process.wait(timeout_s)
        return Done(code, self.out, self.err, time.monotonic() - self._began)

    def leave(self, number: int = signal.SIGINT, timeout_s: float = 60) -> Done:
        """Signal it and wait for its end; the seconds count from the signal."""
        self._began = time.monotonic()
        self.send(number)
        return self.wait(timeout_s)

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 60, every_s: float = 0.05) -> float:
        """Seconds until the condition held; the command lives on meanwhile."""
        began = time.monotonic()
        while not condition():
            lives = self.process.poll() is None
            assert lives or condition(), f"ended with {self.process.returncode}:\n{self.out}\n{self.err}"
            assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s:\n{self.out}\n{self.err}"
            time.sleep(every_s)
        return time.monotonic() - began

    def wait_until_said(self, words: str, timeout_s: float = 60) -> float:
        """Seconds until it said that."""
        return self.wait_for(lambda: words in self.out + self.err, timeout_s)


class Screen(Command):
    """A command in a terminal window of its own, as a shell would start it there."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, master: int) -> None:
        super().__init__(process, out, out)
        self._master, self._closing = master, threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        """Close the window."""
        self._closing.set()
        self._reader.join()
        with contextlib.suppress(OSError):
            os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._out.open("ab", buffering=0) as file:  # all in it has ended
            while not self._closing.is_set():
                if select.select([self._master], [], [], 0.05)[0]:
                    file.write(os.read(self._master, 65536))
