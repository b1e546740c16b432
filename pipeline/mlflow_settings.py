"""Where runs and models are recorded: `mlflow.yaml`, MLflow's own variables, and the defaults.

Knows MLflow's addresses but does not import it.
"""

import difflib
import importlib.metadata
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import ConfigError
from pipeline.workspace import MARKER, Workspace
from pipeline.yaml_files import read_mapping

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_SQLITE = "sqlite:///"
_HTTP = ("http", "https")
_DATABASES = ("sqlite", "mysql", "postgresql", "mssql")

QUIET: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default retries for four minutes; the journal can wait
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What MLflow reads from the environment of a process of ours, unless the user has set it."""


class MlflowSettings(BaseModel):
    """The content of `mlflow.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str | None = Field(None, description="Address of the runs; null: `mlflow.db` in the workspace.")
    registry_uri: str | None = Field(None, description="Address of the models; null: the same as the runs'.")
    experiment: str = Field("seqpipe", min_length=1, description="The experiment that all runs go to.")
    registered_model: str = Field("{task}", description="Name of the registered model; {task} stands for the task.")

    @field_validator("registered_model")
    @classmethod
    def _usable_name(cls, value: str) -> str:
        name = value.replace("{task}", "task")
        if not name.strip() or re.search(r"[{}/:]", name):
            raise ValueError("must be a name without / and :, in which {task} stands for the task")
        return value


@dataclass(frozen=True)
class ResolvedMlflow:
    """Settings with absolute addresses.

    `database` and `artifact_location` are set where the store is an SQLite file: artifacts then lie beside it.
    """

    tracking_uri: str
    registry_uri: str | None
    experiment: str
    registered_model: str
    database: Path | None
    artifact_location: str | None

    @property
    def is_http(self) -> bool:
        """Whether the store is an MLflow server."""
        return urlsplit(self.tracking_uri).scheme in _HTTP

    @property
    def address(self) -> str:
        """The tracking address as it may be shown and kept: without user name and password."""
        parts = urlsplit(self.tracking_uri)
        if "@" not in parts.netloc:
            return self.tracking_uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def model_name(self, task: str) -> str:
        """The name under which models of a task are registered."""
        return self.registered_model.replace("{task}", task)


def load(workspace: Workspace, environ: Mapping[str, str]) -> ResolvedMlflow:
    """The settings of a workspace, MLflow's own variables first.

    Raises:
        ConfigError: `mlflow.yaml` cannot be read or understood, or an address is none that MLflow can use.
    """
    path = workspace.root / MARKER
    settings = _read(path)
    tracking = environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri
    registry = environ.get("MLFLOW_REGISTRY_URI") or settings.registry_uri
    tracking_uri = _absolute(tracking, workspace.root) if tracking else sqlite_uri(workspace.root / DATABASE)
    database = sqlite_path(tracking_uri)
    return ResolvedMlflow(
        tracking_uri=tracking_uri,
        registry_uri=_absolute(registry, workspace.root) if registry else None,
        experiment=environ.get("MLFLOW_EXPERIMENT_NAME") or settings.experiment,
        registered_model=settings.registered_model,
        database=database,
        artifact_location=(database.parent / ARTIFACTS).as_uri() if database else None,
    )


def task_name(dataset: str, classes: Sequence[str] | Literal["all"]) -> str:
    """What a model tells apart, as a name: `cifar10-all`, `cifar10-airplane-automobile-bird-cat`."""
    parts = [dataset, "all"] if classes == "all" else [dataset, *classes]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)


def quiet(environ: MutableMapping[str, str]) -> None:
    """Set what keeps MLflow quiet, offline and quick to give up, where the user has not set it otherwise."""
    for key, value in QUIET.items():
        environ.setdefault(key, value)


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file, whatever characters its path has."""
    text = path.as_posix()
    if _decodes_percent():
        text = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", text).replace("?", "%3F")
    return _SQLITE + text


def sqlite_path(uri: str) -> Path | None:
    """The file behind an SQLite address, or None for an address of another kind."""
    if not uri.startswith(_SQLITE):
        return None
    text = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(unquote(text) if _decodes_percent() else text)


@cache
def _decodes_percent() -> bool:
    """Whether the installed SQLAlchemy decodes %xx in the path of an address (it does since 2.1)."""
    major, minor = importlib.metadata.version("sqlalchemy").split(".")[:2]
    return (int(major), int(re.match(r"\d+", minor)[0])) >= (2, 1)  # type: ignore[index]


def _absolute(uri: str, root: Path) -> str:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in (*_HTTP, "databricks", "databricks-uc") or uri in ("databricks", "databricks-uc"):
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise ConfigError(
            f"{uri!r} is no address that MLflow can use; write http://host:port or sqlite:///file.db "
            f"(`tracking_uri` in {MARKER}, or MLFLOW_TRACKING_URI)"
        )
    if scheme != "sqlite":
        return uri
    path = sqlite_path(uri)
    if path is None or path.name in ("", ":memory:"):
        raise ConfigError(f"{uri!r} names no file; write sqlite:///file.db (`tracking_uri` in {MARKER})")
    if path.is_absolute():
        return uri
    _, question_mark, query = uri.partition("?")
    return sqlite_uri(root / path) + question_mark + query


def _read(path: Path) -> MlflowSettings:
    if not path.exists():
        return MlflowSettings()
    content = read_mapping(path, "experiment: seqpipe")
    known = list(MlflowSettings.model_fields)
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{path}: unknown key {key}; {hint}")
    try:
        return MlflowSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        raise ConfigError(f"{path}: {first['loc'][0]} = {first['input']!r}: {reason}") from None
