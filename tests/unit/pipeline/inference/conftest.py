"""A registered model as its folder lies in MLflow, made without MLflow."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from pipeline.inference.classifier import Classifier
from pipeline.inference.loading import read_classifier
from pipeline.tracking.version_choice import StoredVersion
from pipeline.workspace.fingerprints import file_sha256
from sequencer_models import catalog

CLASSES = ["airplane", "bird", "cat"]


@dataclass
class ModelFolder:
    """The folder; `write` writes its card anew."""

    path: Path
    network: nn.Module
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        return self.path / "artifacts" / "best.safetensors"

    def write(self, **changes: object) -> None:
        self.card = {**self.card, **changes}
        (self.path / "artifacts" / "model.json").write_text(json.dumps(self.card))

    def read(self) -> Classifier:
        return read_classifier(self.path, StoredVersion("m", "3", ("champion",), "r1", self.path.as_uri()))


@pytest.fixture
def model_folder(tmp_path: Path) -> ModelFolder:
    torch.manual_seed(0)
    made = ModelFolder(tmp_path / "model", catalog.build("vanilla", len(CLASSES), hidden=4, layers=1).eval())
    (made.path / "artifacts").mkdir(parents=True)
    artifacts = {"weights": {"path": "artifacts/best.safetensors"}, "card": {"path": "artifacts/model.json"}}
    (made.path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": {"artifacts": artifacts}}}))
    save_file(made.network.state_dict(), made.weights)
    made.write(
        architecture={"name": "vanilla", "hidden": 4, "layers": 1},
        classes=CLASSES,
        mean=[125.0, 122.0, 113.0],
        std=[51.0, 50.0, 52.0],
        test={"accuracy": 0.75},
        weights_sha256=file_sha256(made.weights),
    )
    return made
