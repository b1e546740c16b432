"""Resolve the project's dependencies anew and write the outcome to constraints.txt (`make constraints`).

Nothing is installed: pip resolves what pyproject.toml asks for, its extras included, as it would into an empty
environment, and reports it. The file holds names and versions alone, with no address and no build label (`2.13.0`,
not `2.13.0+cpu`), and no CUDA package, so that a CPU and a CUDA build of torch both install under it.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)(-|$)")
NOT_OURS_TO_PIN = {"pip", "wheel"}


def main() -> None:
    """Resolve, write, and say what changed."""
    before = CONSTRAINTS.read_text().splitlines() if CONSTRAINTS.exists() else []
    pins = pins_of(resolve(requirements()))
    CONSTRAINTS.write_text("\n".join([*header(), *pins]) + "\n")
    old = {line for line in before if not line.startswith("#")}
    print(f"constraints.txt: {len(pins)} pins, {len(set(pins) - old)} new or changed")


def requirements() -> list[str]:
    """What pyproject.toml asks for, its extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(wanted for extra in extras for wanted in extra)]


def resolve(wanted: list[str]) -> dict[str, str]:
    """Name -> version of everything that pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--report", str(report)]
        outcome = subprocess.run([*command, *wanted], capture_output=True, text=True)
        if outcome.returncode != 0:
            sys.exit(f"pip could not resolve the dependencies:\n{outcome.stderr[-2000:]}")
        installed = json.loads(report.read_text())["install"]
    return {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in installed}


def pins_of(versions: dict[str, str]) -> list[str]:
    """Sorted `name==version` lines: names as PEP 503 spells them, versions without a build label."""
    named = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    kept = {name for name in named if not CUDA_ONLY.match(name)} - NOT_OURS_TO_PIN
    return [f"{name}=={named[name].partition('+')[0]}" for name in sorted(kept)]


def header() -> list[str]:
    """How the file came to be, for whoever opens it."""
    python = ".".join(platform.python_version_tuple()[:2])
    return [
        "# The versions that seqpipe is developed and tested with, extras included; edit pyproject.toml, not this.",
        f"# Made by `make constraints` on {platform.system()} {platform.machine()} with Python {python}.",
        "# Used as `pip install -c constraints.txt -e .`: a pin that a platform has no need of is simply not used.",
    ]


if __name__ == "__main__":
    main()
