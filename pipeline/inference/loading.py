"""Loads a registered model: its version from the registry, its weights checked, its network built."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.config.schema import ComputeConfig
from pipeline.errors import ModelError
from pipeline.inference.classifier import BATCH, Classifier
from pipeline.inference.model_card import ModelCard
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.model_versions import find_version, version_files
from pipeline.tracking.moved_store import local_path
from pipeline.tracking.settings import load as load_settings
from pipeline.tracking.version_choice import StoredVersion, VersionChoice
from pipeline.training import numerics
from pipeline.training.resolve_numerics import resolve
from pipeline.workspace.fingerprints import file_sha256
from pipeline.workspace.paths import Workspace
from sequencer_models import catalog


def load_model(model: str | None, workspace: str | os.PathLike[str] | None) -> Classifier:
    """What `pipeline.load_model` does."""
    place = Workspace.find(None if workspace is None else Path(workspace))
    connection = StoreConnection(load_settings(place, os.environ), place, report=lambda line: None)
    choice = VersionChoice() if model is None else VersionChoice.parse(model)
    return load(choice, connection, threads=torch.get_num_threads())


def load(choice: VersionChoice, connection: StoreConnection, threads: int | None) -> Classifier:
    """Load the version that was chosen; this process then computes with the fastest kernels that it has.

    `threads` of None takes all physical cores.

    Raises:
        ConfigError: there is no such model, alias or version.
        ModelError: nothing is registered, or the version's files are gone, damaged or of another release.
        TrackingError: the registry cannot be reached or used.
    """
    version = find_version(choice, connection)
    with version_files(version, connection) as folder:
        classifier = read_classifier(folder, version)
    chosen = resolve(ComputeConfig(device="cpu", precision="fp32", threads=threads), BATCH)
    numerics.use(chosen.threads, chosen.kernel, chosen.linear)
    return classifier


def read_classifier(folder: Path, version: StoredVersion) -> Classifier:
    """The model in a folder that `tracking.logged_model` has written.

    Raises:
        ModelError: the folder holds something else, or the weights are not those that were registered.
    """
    weights, card_file = _artifacts(folder, version)
    try:
        card = ModelCard.from_json(json.loads(card_file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(version, f"its model card is missing or damaged ({type(error).__name__}: {error})") from None
    try:
        if card.weights_sha256 is not None and file_sha256(weights) != card.weights_sha256:
            raise _unusable(version, "its weights were altered since they were registered")
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise _unusable(version, f"its weights are missing or damaged ({error})") from None
    try:
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn first are not used
            network = catalog.build(card.model, len(card.classes), **card.architecture)
        network.load_state_dict(state)
    except (ValueError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(f"{version} was registered by another release of seqpipe ({what}); use that one") from None
    return Classifier(network.eval(), card, version)


def _artifacts(folder: Path, version: StoredVersion) -> tuple[Path, Path]:
    """The files of the weights and of the model card, as MLflow's description of the model has them."""
    try:
        described: Any = yaml.safe_load((folder / "MLmodel").read_bytes())
        artifacts = described["flavors"]["python_function"]["artifacts"]
        return folder / artifacts["weights"]["path"], folder / artifacts["card"]["path"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise ModelError(f"{version} was not registered by seqpipe: it has no model card; name another one") from None


def _unusable(version: StoredVersion, why: str) -> ModelError:
    return ModelError(
        f"{version} cannot be used: {why}\nRemove its files ({local_path(version.source) or version.source}); then "
        "`seqpipe run register` with the settings of its training registers it anew."
    )
