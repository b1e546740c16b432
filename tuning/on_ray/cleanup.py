"""A small process that ends what a search's local Ray leaves behind, however the search ends.

Ray's own processes end with a driver that is killed, but not their children: the agents stay for minutes, and workers
until they notice. So whatever the local Ray starts carries a mark in its environment, or has a log open in Ray's
folder (some overwrite their environment with their title). This process outlives the driver by a moment, ends all of
those and deletes the folder.

    python cleanup.py MARK FOLDER DRIVER      its standard input is closed when the driver ends
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

MARK = "TUNING_SEARCH_MARK"
_GIVE_UP_S = 15.0
_until_exit: "list[Cleanup]" = []
"""Kept open until this process ends."""


class Cleanup:
    """The running process, from the driver's side; leaving the context has it end everything that is marked."""

    def __init__(self, mark: str, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, mark, folder, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )

    def __enter__(self) -> "Cleanup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        from tuning.waiting import is_anything_stuck

        if is_anything_stuck():  # in Ray, which may end this process along with its servers: let it report first
            _until_exit.append(self)
            return
        self.end()

    def end(self) -> None:
        """Have everything end that is marked, and the folder deleted; waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2 * _GIVE_UP_S)


def main() -> None:
    """Wait for the driver's end, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark, folder, driver = sys.argv[1:]
    sys.stdin.buffer.read()
    end_marked(mark, folder, spare=(int(driver), os.getpid()))  # the driver may go on, with a log open there
    shutil.rmtree(folder, ignore_errors=True)


def end_marked(mark: str, folder: str, spare: tuple[int, ...] = ()) -> None:
    """SIGKILL the processes that `marked` finds, until there are none."""
    deadline = time.monotonic() + _GIVE_UP_S
    while (left := marked(mark, folder, spare)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(mark: str, folder: str, spare: tuple[int, ...] = ()) -> list[int]:
    """This user's running processes that carry the mark, or have lost their environment and write below the folder.

    Who writes there with an environment that lacks the mark is a driver of somebody's: it ends by itself.
    """
    import psutil

    inside = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - psutil gives strings

    def is_ours(process: psutil.Process) -> bool:
        if process.pid in spare or process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        with contextlib.suppress(psutil.Error, OSError):
            if environment := process.environ():
                return environment.get(MARK) == mark
        with contextlib.suppress(psutil.Error, OSError):
            return any(file.path.startswith(inside) and _writes(file) for file in process.open_files())
        return False

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if is_ours(process):
                found.append(process.pid)
    return found


def _writes(file: Any) -> bool:
    return getattr(file, "mode", "w") != "r"  # not every system knows


if __name__ == "__main__":
    main()
