"""The model registry: registers a trained model as a version, and sets the aliases.

MLflow is imported inside functions.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking.champions import Reason, make_champion, registry_lock
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.logged_model import Candidate, log_model
from pipeline.tracking.promotion import Contender, Holder, promote
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.registry_names import (
    ACCURACY_TAG,
    CHALLENGER,
    CHAMPION,
    NOT_COMPARED_TAG,
    REGISTER_KEY_TAG,
    RUN_KEY_TAG,
    TEST_HASH_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry; `not_compared` says why it could not be compared with the champion, if so."""

    name: str
    version: str
    aliases: tuple[str, ...]
    not_compared: str = ""


def register(tracker: Tracker, run_id: str, name: str, candidate: Candidate) -> RegisteredVersion:
    """Log a model, make it a version of `name`, and point the aliases; repeating it changes nothing.

    Raises:
        TrackingError: the store or the registry cannot be reached or used.
    """
    try:
        with registry_lock(tracker.workspace):
            client = tracker.connection.client()
            version = _find_version(client, name, candidate.key)
            if version is None or missing_files(version.source):
                model_id, source = log_model(client, run_id, candidate, scratch=tracker.workspace.hidden)
                if version is None or version.source != source:
                    version = _create_version(client, name, source, run_id, model_id, candidate)
                    _link(client, model_id, name, str(version.version))
            return _promote(client, name, str(version.version), candidate)
    except SeqpipeError:
        raise
    except Exception as error:  # a store, a server or MLflow itself may fail in any way
        fault = tracker.connection.explain(error)
        raise TrackingError(
            f"the model could not be registered as {name!r}: {fault}; then repeat the command", passes=fault.passes
        ) from error


def registered_run_keys(connection: StoreConnection) -> frozenset[str]:
    """The keys of the runs that registered versions were made from.

    Raises:
        TrackingError: the registry cannot be reached or used.
    """
    if connection.settings.is_gone:
        return frozenset()
    with connection.explaining():
        client = connection.client(to_write=False)
        keys: set[str] = set()
        page: str | None = None
        while True:
            versions = client.search_model_versions(page_token=page)
            keys |= {version.tags[RUN_KEY_TAG] for version in versions if RUN_KEY_TAG in version.tags}
            page = versions.token
            if not page:
                return frozenset(keys)


def _find_version(client: "MlflowClient", name: str, key: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name = '{name}' and tags.`{REGISTER_KEY_TAG}` = '{key}'")
    return found[0] if found else None


def _create_version(
    client: "MlflowClient", name: str, source: str, run_id: str, model_id: str, candidate: Candidate
) -> "ModelVersion":
    if not client.search_registered_models(f"name = '{name}'"):
        classes = ", ".join(candidate.card["classes"])
        client.create_registered_model(name, description=f"Tells apart: {classes}.")
    tags = {
        **candidate.tags,
        REGISTER_KEY_TAG: candidate.key,
        ACCURACY_TAG: repr(float(candidate.accuracy)),
        TEST_HASH_TAG: candidate.test_hash,
    }
    return client.create_model_version(
        name, source, run_id, tags=tags, description=candidate.description or None, model_id=model_id
    )


def _link(client: "MlflowClient", model_id: str, name: str, version: str) -> None:
    """Link the pages of the run and of the logged model to the version (the tag that MLflow's UI looks for)."""
    link = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})


def _promote(client: "MlflowClient", name: str, version: str, candidate: Candidate) -> RegisteredVersion:
    contender = Contender(
        int(version), candidate.key, candidate.accuracy, candidate.test_hash, candidate.earlier_test_hashes
    )
    champion = _holder(client, name, CHAMPION)
    promotion = promote(contender, champion, _holder(client, name, CHALLENGER))
    if promotion.to_challenger:
        client.set_registered_model_alias(name, CHALLENGER, version)
    if promotion.to_champion:
        why = "the first version" if champion is None else "a higher test accuracy"
        make_champion(client, name, version, Reason("registered", why, run=candidate.key))
    _record_comparison(client, name, version, candidate.description, promotion.not_compared)
    aliases = client.get_model_version(name, version).aliases
    return RegisteredVersion(name, version, tuple(sorted(aliases)), promotion.not_compared)


def _record_comparison(client: "MlflowClient", name: str, version: str, description: str, not_compared: str) -> None:
    """Write at the version why it was not compared with the champion, or remove that when it was."""
    if not_compared:
        client.set_model_version_tag(name, version, NOT_COMPARED_TAG, not_compared)
        client.update_model_version(name, version, f"{description}; not compared: {not_compared}")
    elif NOT_COMPARED_TAG in client.get_model_version(name, version).tags:
        client.delete_model_version_tag(name, version, NOT_COMPARED_TAG)
        client.update_model_version(name, version, description)


def _holder(client: "MlflowClient", name: str, alias: str) -> Holder | None:
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model or alias
            return None
        raise
    return Holder(int(version.version), version.tags)
