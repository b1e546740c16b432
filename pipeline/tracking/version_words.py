"""Registered versions among the words of a command that may name runs too, with their predictions.

MLflow is imported inside functions.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, ModelError
from pipeline.tracking import model_versions
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.promotion import Version
from pipeline.tracking.registered_versions import version_of
from pipeline.tracking.registry_names import CHALLENGER, CHAMPION
from pipeline.tracking.version_choice import VersionChoice


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
        ConfigError: an alias without a name, which several registered models may have, or the only one lacks.
        TrackingError: the registry cannot be reached or used.
    """
    if not may_be_version(word):
        return None
    try:
        stored = model_versions.find_version(VersionChoice.parse(word), connection)
    except ModelError:
        return None
    except ConfigError:
        if word in (CHAMPION, CHALLENGER):
            raise
        return None
    with connection.explaining():
        client = connection.client(to_write=False)
        found = client.get_model_version(stored.name, stored.number)
        return FoundVersion(stored.name, version_of(client, found, scratch))
