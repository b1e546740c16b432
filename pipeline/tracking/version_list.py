"""The versions of registered models as `seqpipe models` lists them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.tracking.registered_versions import all_pages
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.registry_names import ACCURACY_TAG, RUN_KEY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class ListedVersion:
    """A version and what is known of it."""

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


def registered_models(client: "MlflowClient") -> list[str]:
    """The names of all registered models, in order."""
    return sorted(model.name for model in all_pages(client.search_registered_models))


def versions_of(client: "MlflowClient", name: str) -> list[ListedVersion]:
    """All versions of a registered model, the newest first."""
    holders = client.get_registered_model(name).aliases  # a search leaves them out
    aliases: dict[str, list[str]] = {}
    for alias, number in holders.items():
        aliases.setdefault(str(number), []).append(alias)
    found = all_pages(client.search_model_versions, f"name = '{name}'")
    listed = [_listed(version, aliases.get(str(version.version), [])) for version in found]
    return sorted(listed, key=lambda one: int(one.version), reverse=True)


def _listed(version: "ModelVersion", aliases: list[str]) -> ListedVersion:
    tags = dict(version.tags)
    try:
        accuracy = float(tags[ACCURACY_TAG])
    except (KeyError, ValueError):
        accuracy = None
    gone = missing_files(version.source)
    return ListedVersion(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(aliases)),
        model=tags.get("model", ""),
        accuracy=accuracy,
        created_ms=int(version.creation_timestamp),
        run_id=version.run_id or "",
        run_key=tags.get(RUN_KEY_TAG, ""),
        description=version.description or "",
        tags=tags,
        files_gone_from=str(gone) if gone else "",
    )
