"""Where runs and models are recorded: `mlflow.yaml`, MLflow's own variables, and the defaults.

Knows MLflow's addresses but does not import it.
"""

import difflib
import errno
import importlib.metadata
import re
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.errors import ConfigError
from pipeline.workspace.paths import MARKER, Workspace
from pipeline.yaml_files import line_of, read_mapping

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_SQLITE = "sqlite:///"
LONGEST_NAME = 250
"""Of experiments and models, in characters: what every database of MLflow's has room for."""
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
    def is_gone(self) -> bool:
        """Whether the store is a file that is not there (any more), as far as this user can see."""
        try:
            return self.database is not None and not self.database.exists() and not self.database.is_symlink()
        except OSError:  # it may be there; who opens it says what is wrong
            return False

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

    def address(key: str) -> str | None:
        variable = f"MLFLOW_{key.upper()}"
        given, where = environ.get(variable), variable
        if not given:
            given, where = getattr(settings, key), f"{path}: {key}"
        try:
            return None if given is None else _absolute(given, workspace.root)
        except ValueError as error:
            raise ConfigError(f"{where} = {_without_password(given or '')!r}: {error}") from None

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


def require_usable(settings: ResolvedMlflow) -> None:
    """Try what the addresses will be used for, short of asking whoever is there: before the work, not after it.

    Raises:
        ConfigError: a driver is not installed, or a local store cannot be where it should.
    """
    for uri in dict.fromkeys([settings.tracking_uri, settings.registry_uri or settings.tracking_uri]):
        file = sqlite_path(uri)
        if file is not None and (problem := _why_no_file(file)):
            raise ConfigError(f"the MLflow store {file} cannot be there: {problem}; choose another tracking_uri")
        if urlsplit(uri).scheme.partition("+")[0] in _DATABASES and (file is None or "?" in uri):
            _require_driver(uri)


def _why_no_file(file: Path) -> str | None:
    """What keeps a file from being made where there is none: tried, since permissions do not tell all."""
    if file.exists():
        return None if file.is_file() else "it is not a file"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            return None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # passes; what needs the space says so
            return None
        return f"the folder {file.parent} cannot be written ({error.strerror or error})"


def _require_driver(uri: str) -> None:
    from sqlalchemy.engine import make_url

    try:
        url = make_url(uri)
        dialect = url.get_dialect()()
        url.get_dialect().import_dbapi()
        dialect.create_connect_args(url)
    except Exception as error:  # whatever a dialect finds wrong with an address
        missing = isinstance(error, ModuleNotFoundError)
        what = f"needs the Python package {error.name}; install it" if missing else f"is not a valid address: {error}"  # type: ignore[attr-defined]
        raise ConfigError(f"the MLflow address {_without_password(uri)!r} {' '.join(what.split())[:200]}") from None


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/]*@", "//", uri)


def _usable_name(name: str) -> str:
    """A name that MLflow takes, and that a person can tell from others; raises ValueError."""
    _require_clean(name)
    if len(name) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} characters")
    return name


def _require_clean(text: str) -> None:
    if text != text.strip():
        raise ValueError("it begins or ends with a blank; take that out")
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it holds a character that cannot be shown; take that out")


def _absolute(uri: str, root: Path) -> str:
    """The address with whatever is relative in it against `root`; raises ValueError for what is not an address."""
    _require_clean(uri)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in (*_HTTP, "databricks", "databricks-uc") or uri in ("databricks", "databricks-uc"):
        if scheme in _HTTP:
            _require_server(uri)
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise ValueError("no address that MLflow can use; write http://host:port or sqlite:///file.db")
    if scheme != "sqlite":
        return uri
    path = sqlite_path(uri)
    if path is None or path.name in ("", ":memory:"):
        raise ValueError("names no file; write sqlite:///file.db")
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError("there is no such home folder; write the full path") from None
    _, question_mark, query = uri.partition("?")
    return sqlite_uri(root / path) + question_mark + query


def _require_server(uri: str) -> None:
    parts = urlsplit(uri)  # ValueError for brackets that do not match
    if " " in uri:
        raise ValueError("there is a blank in it; take that out")
    if not parts.hostname:
        raise ValueError("names no host; write http://host:port")
    if parts.port == 0:  # ValueError for one that is no number, or too large
        raise ValueError("port 0 is nobody's")
    if parts.query or parts.fragment:
        raise ValueError(f"leave out what follows {uri[: re.search('[?#]', uri).start()]}")  # type: ignore[union-attr]


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
        key = str(first["loc"][0])
        raise ConfigError(f"{path}, line {line_of(path, [key])}: {key} = {first['input']!r}: {reason}") from None
