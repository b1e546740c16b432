"""Keeps this machine awake while it has work: a child process holds the system's own lock against sleep.

The child ends with this process, however that ends: `systemd-inhibit` runs a shell that reads a pipe from here, and
`caffeinate` watches this process.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_ANSWER_S = 2.0
_END_S = 1.0


@dataclass(frozen=True)
class Tool:
    """A program that keeps a system awake."""

    name: str
    hold: Sequence[str]
    """The command that holds the lock until it is ended, or this process ends."""
    trial: Sequence[str]
    """One that takes the lock and gives it back at once."""


def tool_of(platform: str, pid: int) -> Tool | None:
    """The program for a platform; `pid` is the process that the lock must not outlive."""
    if platform == "linux":
        inhibit = ["systemd-inhibit", "--what=sleep:idle", "--who=seqpipe", "--why=a trial runs", "--mode=block"]
        return Tool(inhibit[0], [*inhibit, "sh", "-c", "read _"], [*inhibit, "true"])
    if platform == "darwin":
        caffeinate = ["caffeinate", "-i"]
        return Tool(caffeinate[0], [*caffeinate, "-w", str(pid)], [*caffeinate, "true"])
    return None


class Awake:
    """Holds the lock while `keep(True)` was said last; leaving the context gives it back."""

    def __init__(self, *, may_sleep: bool = False, platform: str = sys.platform) -> None:
        self._tool = None if may_sleep else tool_of(platform, os.getpid())
        self._holding: subprocess.Popen[bytes] | None = None
        self.in_words = _MAY_SLEEP if may_sleep else self._try()
        """Whether the machine stays awake, for who set it up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(False)

    @property
    def is_held(self) -> bool:
        """Whether the lock is held now."""
        return self._holding is not None and self._holding.poll() is None

    def keep(self, is_busy: bool) -> None:
        """Hold the lock, or not; to be called as often as one likes."""
        if is_busy and self._tool is not None and not self.is_held:
            self._holding = _started(self._tool.hold)
        elif not is_busy and self._holding is not None:
            _end(self._holding)
            self._holding = None

    def _try(self) -> str:
        """Take the lock once, and give it back; what came of it. A tool that refuses is not asked again."""
        if self._tool is None or shutil.which(self._tool.name) is None:
            self._tool = None
            return _NO_TOOL
        problem = _problem(self._tool.trial)
        if problem is None:
            return f"stays awake while it has a trial ({self._tool.name}); a closed lid may still send it to sleep"
        refused, self._tool = self._tool.name, None
        return f"may fall asleep while it has a trial: {refused} does not work here ({problem})"


_MAY_SLEEP = "may fall asleep while it has a trial, as asked"
_NO_TOOL = (
    "may fall asleep while it has a trial: it has neither systemd-inhibit nor caffeinate; turn sleep off in its "
    "power settings"
)


def _problem(command: Sequence[str]) -> str | None:
    """Why a command failed, in a line; None if it did not."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # without a terminal, where it might ask for a password
            timeout=_ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return error.strerror or str(error) if isinstance(error, OSError) else f"no answer within {_ANSWER_S:.0f} s"
    if ended.returncode == 0:
        return None
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return said[0] if said else f"exit code {ended.returncode}"


def _started(command: Sequence[str]) -> "subprocess.Popen[bytes] | None":
    with contextlib.suppress(OSError):  # no process can be started now; it is tried again
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
    return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()  # ends the shell that reads it
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> Mapping[str, str]:
    """This process' environment in English, so that what a tool says fits in our line."""
    return os.environ | {"LC_ALL": "C"}
