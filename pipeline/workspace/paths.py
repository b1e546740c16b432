"""The layout of a workspace on disk.

    mlflow.yaml                   marks the workspace
    mlflow.db, mlartifacts/       the default MLflow store, where plain `mlflow ui` finds it
    .seqpipe/data/                verified arrays of the official data set
    .seqpipe/stages/<stage>/<fingerprint>[.partial]/    a stage's work; `.partial` until it is whole
    .seqpipe/predictions/<run key>/                     a trained model's predictions of the test split
    .seqpipe/cluster/             the cluster that is run from here: where its head is, and its join code
    .seqpipe/reports/             pages of reports, as MLflow gets them
    .seqpipe/runs/                delivery state: what each MLflow store has of each run
    .seqpipe/last_runs.json       the settings that each model was last run with
    .seqpipe/locks/               a lock per stage folder, search and run

A stage works in `<fingerprint>.partial/`, which survives a crash. Its manifest is written last, then the folder is
renamed: a folder without the suffix is whole.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import writing

MARKER = "mlflow.yaml"


@dataclass(frozen=True)
class Workspace:
    """The folder that holds a user's runs."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """The nearest folder at or above `start` with an `mlflow.yaml`, else `start` (the working directory)."""
        try:
            start = (start or Path.cwd()).absolute()
        except FileNotFoundError:
            raise WorkspaceError("the working directory no longer exists; change to another one") from None
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return cls(folder)
        return cls(start)

    @property
    def hidden(self) -> Path:
        """The folder that holds everything but the MLflow store."""
        return self.root / ".seqpipe"

    @property
    def data(self) -> Path:
        """The verified arrays of the official data set."""
        return self.hidden / "data"

    @property
    def predictions(self) -> Path:
        """One folder of predictions per trained model."""
        return self.hidden / "predictions"

    @property
    def cluster(self) -> Path:
        """What is kept of the cluster that is run from here."""
        return self.hidden / "cluster"

    def stage(self, stage: str) -> Path:
        """All folders of one stage."""
        return self.hidden / "stages" / stage

    def lock(self, name: str) -> Path:
        """The lock file of a name."""
        return self.hidden / "locks" / f"{name}.lock"

    def create(self) -> None:
        """Create the `.seqpipe` folder.

        Raises:
            WorkspaceError: the place cannot be written, or libraries refuse its name.
        """
        try:
            str(self.root).encode("utf-8")
        except UnicodeEncodeError:
            raise WorkspaceError(
                f"the workspace {self.root} has a name that is not valid UTF-8, which MLflow and safetensors refuse; "
                "rename the folder (or set a UTF-8 locale, such as LANG=C.UTF-8)"
            ) from None
        with writing(self.hidden):
            self.hidden.mkdir(parents=True, exist_ok=True)
