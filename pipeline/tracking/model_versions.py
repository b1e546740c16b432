"""The versions in the model registry, and how users name one of them.

MLflow is imported inside functions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.suggestions import nearest
from pipeline.errors import ConfigError
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.registry_names import ACCURACY_TAG, CHAMPION, RUN_KEY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as it is shown."""

    name: str
    version: str
    aliases: tuple[str, ...]
    model: str
    """The architecture's name; empty where the version does not say."""
    accuracy: float | None
    """On the test split."""
    created_ms: int
    run_id: str
    run_key: str
    description: str
    tags: Mapping[str, str]
    files_gone_from: str = ""
    """The local folder that the model's files are missing from, if they are."""

    def to_json(self) -> dict[str, Any]:
        """In plain types."""
        return asdict(self)


@dataclass(frozen=True)
class VersionName:
    """How a user names a version: `3`, `champion`, `NAME@champion` or `NAME/3`."""

    name: str | None
    version: str
    """A number or an alias."""

    @classmethod
    def parse(cls, text: str) -> "VersionName":
        """Raises `ConfigError` where the text names none."""
        name, slash, version = text.rpartition("/")
        if not slash:
            name, slash, version = text.rpartition("@")
        if not version or (slash and not name) or "/" in name:
            raise ConfigError(f"{text!r} names no version; write `champion`, `3`, `NAME@champion` or `NAME/3`")
        return cls(name or None, version)


def registered_models(client: "MlflowClient") -> list[str]:
    """The names of all registered models, in order."""
    names: list[str] = []
    page: str | None = None
    while True:
        found = client.search_registered_models(page_token=page)
        names += [model.name for model in found]
        page = found.token
        if not page:
            return sorted(names)


def which_model(client: "MlflowClient", name: str | None) -> str:
    """The registered model that a user means; without a name the only one.

    Raises:
        ConfigError: there is none of that name, none at all, or several to choose from.
    """
    names = registered_models(client)
    if not names:
        raise ConfigError("no model is registered yet; `seqpipe run all` trains and registers one")
    if name is not None:
        if name not in names:
            raise ConfigError(f"no model {name!r} is registered{nearest(name, names)}")
        return name
    if len(names) > 1:
        raise ConfigError(f"several models are registered: {', '.join(names)}; name one, as in `{names[0]}@champion`")
    return names[0]


def find(client: "MlflowClient", text: str) -> Version:
    """The version that a user names.

    Raises:
        ConfigError: there is no such model, version or alias.
    """
    from mlflow.exceptions import MlflowException

    asked = VersionName.parse(text)
    name = which_model(client, asked.name)
    try:
        if asked.version.isdecimal():
            return _shown(client.get_model_version(name, asked.version))
        return _shown(client.get_model_version_by_alias(name, asked.version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    known = ", ".join(f"{one.version}{_in_brackets(one.aliases)}" for one in versions_of(client, name))
    what = f"version {asked.version}" if asked.version.isdecimal() else f"version with the alias {asked.version!r}"
    raise ConfigError(f"{name} has no {what}; it has {known or 'no version at all'}")


def versions_of(client: "MlflowClient", name: str) -> list[Version]:
    """All versions of a registered model, the newest first."""
    return sorted(_versions_of(client, name), key=lambda one: int(one.version), reverse=True)


def _versions_of(client: "MlflowClient", name: str) -> Iterator[Version]:
    aliases: dict[str, list[str]] = {}
    for alias, version in client.get_registered_model(name).aliases.items():
        aliases.setdefault(str(version), []).append(alias)
    page: str | None = None
    while True:
        found = client.search_model_versions(f"name = '{name}'", page_token=page)
        for version in found:
            yield _shown(version, aliases.get(str(version.version), []))
        page = found.token
        if not page:
            return


def _shown(version: "ModelVersion", aliases: list[str] | None = None) -> Version:
    tags = dict(version.tags)
    try:
        accuracy = float(tags[ACCURACY_TAG])
    except (KeyError, ValueError):
        accuracy = None
    gone = missing_files(version.source)
    return Version(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(version.aliases if aliases is None else aliases)),
        model=tags.get("model", ""),
        accuracy=accuracy,
        created_ms=int(version.creation_timestamp),
        run_id=version.run_id or "",
        run_key=tags.get(RUN_KEY_TAG, ""),
        description=version.description or "",
        tags=tags,
        files_gone_from=str(gone) if gone else "",
    )


def _in_brackets(aliases: tuple[str, ...]) -> str:
    return f" ({', '.join(aliases)})" if aliases else ""


def is_champion(version: Version) -> bool:
    """Whether it holds the alias."""
    return CHAMPION in version.aliases
