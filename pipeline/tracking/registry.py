"""The model registry: registers a trained model as a version, and sets the aliases.

MLflow is imported inside functions.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking.champion_history import Kind
from pipeline.tracking.champion_store import MlflowChampions
from pipeline.tracking.champions import Reason, make_champion, registry_lock
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.logged_model import Candidate, log_model
from pipeline.tracking.promotion import Gate, Promotion, Ruling, Standing, promote
from pipeline.tracking.registered_versions import all_pages, standing
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.registry_names import (
    ACCURACY_TAG,
    CHALLENGER,
    NOT_COMPARED_TAG,
    REGISTER_KEY_TAG,
    RUN_KEY_TAG,
    TEST_HASH_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_RULING = "\n\n---\n\n"
"""Stands in a description between what a version is and what the gate said of it."""

_ATTEMPTS = 5
"""How often a version is judged, if another laptop makes another one champion meanwhile."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry; `not_compared` says why it could not be compared with the champion, if so."""

    name: str
    version: str
    aliases: tuple[str, ...]
    not_compared: str = ""


def register(tracker: Tracker, run_id: str, name: str, candidate: Candidate, gate: Gate) -> RegisteredVersion:
    """Log a model, make it a version of `name`, and point the aliases as the gate says; repeating it changes nothing.

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
            number, hashes = str(version.version), candidate.earlier_test_hashes
            return _promote(client, name, number, gate, hashes, tracker.workspace.hidden, "registered")
    except SeqpipeError:
        raise
    except Exception as error:  # a store, a server or MLflow itself may fail in any way
        fault = tracker.connection.explain(error)
        what = fault.message if isinstance(fault, TrackingError) else str(fault)
        raise TrackingError(
            f"the model could not be registered as {name!r}: {what}; then repeat the command", passes=fault.passes
        ) from error


def judge(tracker: Tracker, name: str, number: str, gate: Gate, *, dry_run: bool) -> RegisteredVersion:
    """Ask the gate about a version that is registered already, and point the aliases; a `dry_run` changes nothing.

    Raises:
        TrackingError: the registry cannot be reached or used.
    """
    with tracker.connection.explaining_to_repeat(), nullcontext() if dry_run else registry_lock(tracker.workspace):
        client = tracker.connection.client(to_write=not dry_run)
        scratch = None if dry_run else tracker.workspace.hidden
        return _promote(client, name, number, gate, {}, scratch, "promoted", dry_run=dry_run)


def registered_run_keys(connection: StoreConnection) -> frozenset[str]:
    """The keys of the runs that registered versions were made from.

    Raises:
        TrackingError: the registry cannot be reached or used.
    """
    if connection.settings.is_gone:
        return frozenset()
    with connection.explaining():
        client = connection.client(to_write=False)
        versions = all_pages(client.search_model_versions)
        return frozenset(version.tags[RUN_KEY_TAG] for version in versions if RUN_KEY_TAG in version.tags)


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


def _promote(
    client: "MlflowClient",
    name: str,
    number: str,
    gate: Gate,
    earlier_test_hashes: Mapping[str, str],
    scratch: Path | None,
    kind: Kind,
    *,
    dry_run: bool = False,
) -> RegisteredVersion:
    champions = MlflowChampions(client)
    for _ in range(_ATTEMPTS):
        before = champions.model(name).champion
        with standing(client, name, number, scratch) as found:
            asked = found if dry_run else replace(found, write_tag=partial(_write_tag, champions, name))
            promotion = promote(asked, gate, earlier_test_hashes)
        if dry_run:
            break
        if promotion.ruling is not None:
            _record_ruling(client, name, number, promotion.ruling)
        if promotion.to_challenger:
            client.set_registered_model_alias(name, CHALLENGER, number)
        if not promotion.to_champion:
            break
        if champions.model(name).champion == before:
            make_champion(champions, name, number, _reason(found, promotion, kind))
            break
    else:
        raise TrackingError(
            f"the champion of {name} was changed again and again while it was judged; repeat the command", passes=True
        )
    aliases = client.get_model_version(name, number).aliases
    not_compared = promotion.ruling.not_compared if promotion.ruling else ""
    return RegisteredVersion(name, number, tuple(sorted(aliases)), not_compared)


def _write_tag(champions: MlflowChampions, name: str, key: str, value: str) -> Mapping[str, str]:
    champions.set_tag(name, key, value)
    return champions.model(name).tags


def _reason(standing: Standing, promotion: Promotion, kind: Kind) -> Reason:
    """Why the gate's choice became champion."""
    if promotion.ruling is None:
        why = "a newer version of the champion's own model"
    elif standing.champion is None:
        why = "there was no champion"
    else:
        why = f"the gate let it through against version {standing.champion.number}"
    comparison = promotion.ruling.summary if promotion.ruling else ""
    return Reason(kind, why, standing.contender.tags.get(RUN_KEY_TAG, ""), comparison)


def _record_ruling(client: "MlflowClient", name: str, number: str, ruling: Ruling) -> None:
    """Write at the version what the gate said."""
    version = client.get_model_version(name, number)
    for key, value in ruling.tags.items():
        client.set_model_version_tag(name, number, key, value)
    if ruling.not_compared:
        client.set_model_version_tag(name, number, NOT_COMPARED_TAG, ruling.not_compared)
    elif NOT_COMPARED_TAG in version.tags:
        client.delete_model_version_tag(name, number, NOT_COMPARED_TAG)
    own, _, _ = (version.description or "").partition(_RULING)  # what an earlier ruling wrote is replaced
    client.update_model_version(name, number, f"{own}{_RULING}{ruling.text}")
