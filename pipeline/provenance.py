"""Provenance of a run: package versions, and the commit of the code."""

import contextlib
import os
import platform
import signal
import subprocess
from importlib import metadata
from pathlib import Path

from pipeline import environment

_GIT_S = 5.0
_RECORDED = ("seqpipe", "torch", "numpy", "mlflow", "safetensors")


def versions() -> dict[str, str]:
    """Python, the operating system, and the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the running code, with `-dirty` if the code was changed since; None outside a checkout.

    A repository that does not track this file is ignored: seqpipe is only installed inside it.
    """
    code = Path(__file__).resolve()
    try:
        _git(code.parent, "ls-files", "--error-unmatch", code.name)
        commit = _git(code.parent, "rev-parse", "HEAD")
        changed = _git(code.parent, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    """The output of git in a folder, even if the environment names another repository; git starts no other program.

    On a timeout or an interruption, git and its children are killed.
    """
    environ = dict(os.environ)
    environment.clean_variables(environ)
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as git:
        try:
            answer, _ = git.communicate(timeout=_GIT_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(git.pid, signal.SIGKILL)
            raise
    if git.returncode:
        raise subprocess.CalledProcessError(git.returncode, command)
    return answer.strip()
