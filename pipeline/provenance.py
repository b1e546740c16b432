"""What a run was made with: versions and the commit of the code."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

_RECORDED = ("seqpipe", "torch", "numpy", "mlflow", "safetensors")


def versions() -> dict[str, str]:
    """Python, the operating system, and the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the code that runs, with `-dirty` where it was changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=10, check=True)
    return done.stdout.decode("utf-8", "replace").strip()
