"""Registered versions as a user writes them: `champion`, `NAME@champion` or `NAME/3`.

MLflow is imported inside functions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.promotion import Version
from pipeline.tracking.registered_versions import all_pages, holder, version_of
from pipeline.tracking.registry_names import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class FoundVersion:
    """A version, and the registered model that it is of."""

    name: str
    version: Version

    @property
    def words(self) -> str:
        """`NAME/3`."""
        return f"{self.name}/{self.version.number}"


def may_be_version(word: str) -> bool:
    """Whether a word has the form of one, so that the registry is worth asking."""
    if "'" in word:  # MLflow's queries have no way to write it
        return False
    return word in (CHAMPION, CHALLENGER) or "@" in word or ("/" in word and word.rpartition("/")[2].isdecimal())


def find_version(connection: StoreConnection, word: str, scratch: Path) -> FoundVersion | None:
    """The version that a word names; None if there is none. `scratch` is a folder for what has to be fetched.

    Raises:
        ConfigError: an alias without a name, which several registered models have.
        TrackingError: the registry cannot be reached or used.
    """
    if not may_be_version(word) or connection.settings.is_gone:
        return None
    with connection.explaining():
        client = connection.client(to_write=False)
        if word in (CHAMPION, CHALLENGER):
            return _only_holder(client, word, scratch)
        name, _, alias = word.rpartition("@")
        if name and (number := holder(client, name, alias)) is not None:
            return _found(client, name, number, scratch)
        name, _, text = word.rpartition("/")
        return _found(client, name, int(text), scratch) if name and text.isdecimal() else None


def _only_holder(client: "MlflowClient", alias: str, scratch: Path) -> FoundVersion | None:
    names = [model.name for model in all_pages(client.search_registered_models)]
    holders = {name: number for name in names if (number := holder(client, name, alias)) is not None}
    if len(holders) > 1:
        written = ", ".join(f"{name}@{alias}" for name in holders)
        raise ConfigError(f"several registered models have a {alias}; say which: {written}")
    return next((_found(client, name, number, scratch) for name, number in holders.items()), None)


def _found(client: "MlflowClient", name: str, number: int, scratch: Path) -> FoundVersion | None:
    for one in all_pages(client.search_model_versions, f"name = '{name}'"):
        if int(one.version) == number:
            return FoundVersion(name, version_of(client, one, scratch))
    return None
