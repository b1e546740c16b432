"""A workspace with an MLflow store, a training's stage folder and its journal."""

import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.tracking import moved_store
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.manifests import MANIFEST, Manifest
from pipeline.workspace.paths import Workspace

REPOSITORY = Path(__file__).parents[2]
RUN = RunIdentity("abc-1", "small, first try")
TRAIN = "train/abc"


class TrackedWorkspace:
    """A workspace with a copy of `made_store`, if given, an unfinished training and its journal."""

    def __init__(self, root: Path, made_store: Path | None) -> None:
        self.workspace = Workspace(root)
        root.mkdir(exist_ok=True)
        if made_store:
            shutil.copy(made_store, root / "mlflow.db")
            moved_store.update_addresses(mlflow_settings.load(self.workspace, {}), self.workspace, lambda text: None)
        self.folder = self.workspace.stage("train") / "abc.partial"
        self.folder.mkdir(parents=True)
        self.journal = Journal(self.folder)
        self.problems: list[str] = []

    def tracker(self, **environ: str) -> Tracker:
        return Tracker(mlflow_settings.load(self.workspace, environ), self.workspace, self.problems.append)

    def epochs(self, first: int, last: int) -> int:
        for epoch in range(first, last + 1):
            self.journal.metrics({"train/loss": 1 / epoch, "validation/accuracy": 1 - 1 / epoch}, epoch)
        return self.journal.offset

    def rows(self, table: str = "metrics", columns: str = "key, step") -> list[tuple]:
        connection = sqlite3.connect(self.workspace.root / "mlflow.db")
        try:
            return sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())
        finally:
            connection.close()


class FinishedTraining:
    """A whole training and its evaluation, as the stages leave them."""

    def __init__(self, tracked: TrackedWorkspace) -> None:
        self.run = RUN
        tracked.journal.metrics({"train/loss": 1.0}, 1)
        write_json(tracked.folder / "run.json", {"key": self.run.key, "name": self.run.name})
        write_json(tracked.folder / MANIFEST, asdict(Manifest("train", 1, "abc", {}, {}, {})))
        self.folder = tracked.folder.rename(tracked.folder.with_name("abc"))
        self.evaluation = tracked.workspace.stage("evaluate") / "def"
        self.evaluation.mkdir(parents=True)
        with Journal(self.evaluation) as journal:
            journal.metrics({"test/accuracy": 0.9}, 1)
        write_json(self.evaluation / MANIFEST, asdict(Manifest("evaluate", 1, "def", {}, {"train": "abc"}, {})))


def expected(last: int) -> list[tuple]:
    """The rows of `TrackedWorkspace.epochs(1, last)`."""
    return sorted((key, step) for key in ("train/loss", "validation/accuracy") for step in range(1, last + 1))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def deliver_in_a_process(workspace: Workspace) -> "subprocess.CompletedProcess[str]":
    """What a later command does: deliver what is pending, and print how many runs that were."""
    script = (
        "import sys; from pathlib import Path\n"
        "from pipeline.tracking import delivery, settings; from pipeline.workspace.paths import Workspace\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "print(delivery.Tracker(settings.load(workspace, {}), workspace, print).deliver_pending())"
    )
    words = [sys.executable, "-c", script, str(workspace.root)]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)


KILLED_INSIDE_A_COMMIT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
connection.execute("BEGIN")
connection.execute("UPDATE metrics SET value = -1")
connection.execute("CREATE TABLE spill (text)")
connection.executemany("INSERT INTO spill VALUES (?)", (("x" * 1000,) for _ in range(500)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_inside_a_commit(database: Path) -> None:
    """Leave a commit half written in a store that has metrics."""
    done = subprocess.run([sys.executable, "-c", KILLED_INSIDE_A_COMMIT, str(database)], check=False)
    assert done.returncode == -9
    assert database.with_name("mlflow.db-journal").stat().st_size
