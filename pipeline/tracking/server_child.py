"""The child process that runs MLflow's own server.

Started as `python -m pipeline.tracking.server_child`. It reads its request as a line of JSON from stdin, and ends
when stdin is closed: when its parent is gone.
"""

import json
import os
import shutil
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from pipeline.tracking.new_store import create_store
from pipeline.tracking.settings import ARTIFACTS, ResolvedMlflow
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class Request:
    """What to serve, and where; `copy` is a temporary folder with a copy of the store, to be removed at the end."""

    settings: ResolvedMlflow
    workspace: Workspace
    host: str
    port: int
    copy: Path | None = None

    def send(self, stream: IO[bytes]) -> None:
        """Write the request for the child; not as arguments, since an address may hold a password."""
        stream.write(json.dumps(asdict(self), default=str).encode() + b"\n")
        stream.flush()

    @classmethod
    def receive(cls, stream: IO[bytes]) -> "Request":
        """Read the request of the parent."""
        content = json.loads(stream.readline())
        settings = content["settings"]
        database = Path(settings.pop("database")) if settings["database"] else settings.pop("database")
        return cls(
            ResolvedMlflow(**settings, database=database),
            Workspace(Path(content["workspace"]["root"])),
            content["host"],
            content["port"],
            Path(content["copy"]) if content["copy"] else None,
        )


def serve() -> None:
    """Create the store where there is none, then run MLflow's server."""
    request = Request.receive(sys.stdin.buffer)
    threading.Thread(target=end_with_parent, args=[request.copy], daemon=True).start()
    create_store(request.settings, request.workspace)
    from mlflow.cli import cli

    cli(arguments_of(request))


def arguments_of(request: Request) -> list[str]:
    """The arguments of the `mlflow` command."""
    settings = request.settings
    arguments = ["server", "--host", request.host, "--port", str(request.port), "--workers", "1"]
    arguments += ["--backend-store-uri", settings.tracking_uri]
    if settings.registry_uri:
        arguments += ["--registry-store-uri", settings.registry_uri]
    artifacts = settings.artifact_location or (request.workspace.root / ARTIFACTS).as_uri()
    arguments += ["--artifacts-destination", artifacts]  # the default is the working folder, an empty one
    if settings.artifact_location:
        arguments += ["--default-artifact-root", settings.artifact_location]
    return arguments


def end_with_parent(copy: Path | None) -> None:
    """Wait until the parent is gone, then end this process and its children, and remove the `copy`."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    children = psutil.Process().children(recursive=True)
    for kill in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            try:
                kill(child)
            except psutil.NoSuchProcess:
                continue
        children = psutil.wait_procs(children, timeout=3.0)[1]
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    serve()
