"""Where runs and models are recorded: `mlflow.yaml`, MLflow's variables, the defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.config.suggestions import nearest
from pipeline.errors import ConfigError
from pipeline.tracking import addresses
from pipeline.tracking.sqlite_files import sqlite_path, sqlite_uri
from pipeline.workspace.paths import MARKER, Workspace
from pipeline.yaml_files import line_of, read_mapping

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
LONGEST_NAME = 250
"""Of experiments and models, in characters: what every database that MLflow supports has room for."""


class MlflowSettings(BaseModel):
    """Contents of `mlflow.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str | None = Field(None, description="Address of the runs; null: `mlflow.db` in the workspace.")
    registry_uri: str | None = Field(None, description="Address of the models; null: the same as the runs'.")
    experiment: str = Field("seqpipe", min_length=1, description="The experiment that all runs go to.")
    registered_model: str = Field("{task}", description="Name of the registered model; {task} stands for the task.")

    @field_validator("experiment")
    @classmethod
    def _usable_experiment(cls, value: str) -> str:
        if "{task}" in value:
            raise ValueError("{task} stands for the task in registered_model only")
        return _usable_name(value)

    @field_validator("registered_model")
    @classmethod
    def _usable_model_name(cls, value: str) -> str:
        name = value.replace("{task}", task_name("cifar10", CIFAR10_CLASSES))
        if name in (".", "..") or (found := re.search(r"""[{}/:'"`?\\]""", name)):
            part = name if name in (".", "..") else found[0]  # type: ignore[index]
            raise ValueError(
                f"must be a name without / and : and quotes, in which {{task}} stands for the task; not {part}"
            )
        _usable_name(name)
        return value


@dataclass(frozen=True)
class ResolvedMlflow:
    """Settings with absolute addresses.

    `database` and `artifact_location` are set where the store is an SQLite file: artifacts are then kept beside it.
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
        return urlsplit(self.tracking_uri).scheme in addresses.HTTP

    @property
    def is_gone(self) -> bool:
        """Whether the store is a file that does not exist (any more), as far as this user can see."""
        try:
            return self.database is not None and not self.database.exists() and not self.database.is_symlink()
        except OSError:  # it may exist; opening it reports what is wrong
            return False

    @property
    def address(self) -> str:
        """The tracking address as it is shown and stored: without user name and password."""
        parts = urlsplit(self.tracking_uri)
        if "@" not in parts.netloc:
            return self.tracking_uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def model_name(self, task: str) -> str:
        """The name under which models of a task are registered."""
        return self.registered_model.replace("{task}", task)


def load(workspace: Workspace, environ: Mapping[str, str]) -> ResolvedMlflow:
    """The settings of a workspace; MLflow's own variables override `mlflow.yaml`.

    Raises:
        ConfigError: `mlflow.yaml` cannot be read or understood, or MLflow cannot use an address.
    """
    path = workspace.root / MARKER
    settings = _read(path)

    def address(key: str) -> str | None:
        variable = f"MLFLOW_{key.upper()}"
        given, where = environ.get(variable), variable
        if not given:
            given, where = getattr(settings, key), f"{path}: {key}"
        try:
            return None if given is None else addresses.absolute_address(given, workspace.root)
        except ValueError as error:
            raise ConfigError(f"{where} = {addresses.without_password(given or '')!r}: {error}") from None

    experiment = environ.get("MLFLOW_EXPERIMENT_NAME") or settings.experiment
    try:
        _usable_name(experiment)
    except ValueError as error:
        raise ConfigError(f"MLFLOW_EXPERIMENT_NAME = {experiment!r}: {error}") from None
    tracking_uri = address("tracking_uri") or sqlite_uri(workspace.root / DATABASE)
    database = sqlite_path(tracking_uri)
    return ResolvedMlflow(
        tracking_uri=tracking_uri,
        registry_uri=address("registry_uri"),
        experiment=experiment,
        registered_model=settings.registered_model,
        database=database,
        artifact_location=(database.parent / ARTIFACTS).as_uri() if database else None,
    )


def task_name(dataset: str, classes: Sequence[str] | Literal["all"]) -> str:
    """The classification task as a name: `cifar10-all`, `cifar10-airplane-automobile-bird-cat`."""
    parts = [dataset, "all"] if classes == "all" else [dataset, *classes]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)


def require_usable(settings: ResolvedMlflow) -> None:
    """Check what the addresses need on this machine before the work starts, without contacting a server.

    Raises:
        ConfigError: a driver is not installed, or a local store cannot be where it should.
    """
    for uri in dict.fromkeys([settings.tracking_uri, settings.registry_uri or settings.tracking_uri]):
        addresses.require_usable(uri)


def _usable_name(name: str) -> str:
    """A name that MLflow accepts and a person can read; raises ValueError for another."""
    addresses.require_clean(name)
    if len(name) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} characters")
    return name


def _read(path: Path) -> MlflowSettings:
    if not path.exists():
        return MlflowSettings()
    content = read_mapping(path, "experiment: seqpipe")
    known = list(MlflowSettings.model_fields)
    for key in content:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key}{nearest(str(key), known)}")
    try:
        return MlflowSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        key = str(first["loc"][0])
        raise ConfigError(f"{path}, line {line_of(path, [key])}: {key} = {first['input']!r}: {reason}") from None
