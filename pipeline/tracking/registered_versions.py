"""The versions of a registered model, with their predictions of the test images, as the gate looks at them.

MLflow is imported inside functions.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.moved_store import local_path
from pipeline.tracking.promotion import Standing, Version
from pipeline.tracking.registry_names import CHALLENGER, CHAMPION, PREDICTIONS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@contextmanager
def standing(client: "MlflowClient", name: str, number: str, scratch: Path | None) -> Iterator[Standing]:
    """How a version stands among the others; predictions can be fetched within this, into a folder in `scratch`.

    Where that is None, into one of the system's.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        every = all_pages(client.search_model_versions, f"name = '{name}'")
        versions = {int(one.version): version_of(client, one, Path(folder)) for one in every}
        contender = versions.pop(int(number))
        known = {contender.number: contender, **versions}
        holders = [known.get(holder(client, name, alias) or 0) for alias in (CHAMPION, CHALLENGER)]
        model_tags = dict(client.get_registered_model(name).tags)
        yield Standing(contender, holders[0], holders[1], tuple(versions.values()), model_tags)


def all_pages(search: Callable[..., Any], query: str | None = None) -> Iterator[Any]:
    """Everything that a search of MLflow's finds, page by page."""
    page: str | None = None
    while True:
        found = search(query, page_token=page)
        yield from found
        page = found.token
        if not page:
            return


def version_of(client: "MlflowClient", found: "ModelVersion", folder: Path) -> Version:
    """The version, whose predictions are fetched into a folder when they are asked for."""
    return Version(int(found.version), dict(found.tags), partial(_predictions, client, found, folder))


def _predictions(client: "MlflowClient", version: "ModelVersion", folder: Path) -> Path | None:
    """The file of a version's predictions, fetched into the folder unless it is on this disk; None if it has none."""
    if (local := local_path(version.source)) is not None:
        return local / PREDICTIONS if (local / PREDICTIONS).is_file() else None
    from mlflow.artifacts import download_artifacts, list_artifacts

    parent = f"{version.source}/{Path(PREDICTIONS).parent}"
    if not any(
        Path(one.path).name == Path(PREDICTIONS).name
        for one in list_artifacts(artifact_uri=parent, tracking_uri=client.tracking_uri)
    ):
        return None
    to = tempfile.mkdtemp(dir=folder)
    uri = f"{version.source}/{PREDICTIONS}"
    return Path(download_artifacts(artifact_uri=uri, dst_path=to, tracking_uri=client.tracking_uri))


def holder(client: "MlflowClient", name: str, alias: str) -> int | None:
    """The number of the version that holds an alias."""
    from mlflow.exceptions import MlflowException

    try:
        return int(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model or alias
            return None
        raise
