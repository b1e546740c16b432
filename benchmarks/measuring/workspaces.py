"""`seqpipe` as a user runs it, in workspaces of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

SEQPIPE = str(Path(sys.executable).with_name("seqpipe"))


@dataclass(frozen=True)
class Place:
    """A workspace, and the cache folder that kernels and measured choices are kept in."""

    root: Path
    cache: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """Of the commands: the cache of this place, MLflow as it is by default, no telemetry."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        ours = {"XDG_CACHE_HOME": str(self.cache), "COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return {**kept, **ours, **self.variables}

    def with_environment(self, variables: Mapping[str, str]) -> "Place":
        """The same place, whose commands have these variables too."""
        return replace(self, variables=variables)

    def start(
        self, *words: str, stdout: int | IO[str] = subprocess.DEVNULL, stderr: int | None = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        """A command, its progress on a pipe."""
        return subprocess.Popen(
            [SEQPIPE, *words], cwd=self.root, env=self.environ, stdout=stdout, stderr=stderr, text=True
        )

    def run(self, *words: str) -> None:
        """A command to its end."""
        process = self.start(*words)
        _, told = process.communicate()
        if process.returncode:
            sys.exit(f"seqpipe {' '.join(words)} ended with {process.returncode}:\n{told}")

    def seconds_until(self, is_it: Callable[[str], bool], *words: str) -> float:
        """Seconds from the start of a command to the first line of its progress that `is_it`; it is ended there."""
        started = time.monotonic()
        process = self.start(*words)
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if is_it(line):
                taken = time.monotonic() - started
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return taken
        process.wait()
        sys.exit(f"seqpipe {' '.join(words)} ended with {process.returncode} before that:\n{''.join(told)}")


def with_data(place: Place, data: Path | None) -> Place:
    """The same place, with the data set in it: that of a `.seqpipe/data` folder, or fetched."""
    place.root.mkdir(exist_ok=True)
    place.cache.mkdir(exist_ok=True)
    if data is not None:
        (place.root / "mlflow.yaml").touch()
        shutil.copytree(data, place.root / ".seqpipe" / "data")
    else:
        place.run("run", "prepare")
        shutil.rmtree(place.root / ".seqpipe" / "stages")
    return place


def prepared(folder: Path, data: Path | None, words: Sequence[str] = ()) -> Path:
    """A workspace in which `seqpipe run prepare` is done, as a template; its data set's own files are left out."""
    place = Place(folder / "template", folder / "template-cache")
    place.root.mkdir()
    (place.root / "mlflow.yaml").touch()
    if data is not None:
        shutil.copytree(data, place.root / ".seqpipe" / "data")
    place.run("run", "prepare", *words)
    shutil.rmtree(place.root / ".seqpipe" / "data")
    return place.root


def new_place(folder: Path, template: Path, name: str) -> Place:
    """A workspace like the template, and an empty cache: here nothing was ever trained or built."""
    place = Place(folder / name, folder / f"{name}-cache")
    shutil.copytree(template, place.root)
    place.cache.mkdir()
    return place
