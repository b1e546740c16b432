"""Safetensors: the weights alone, and the architectures beside them as source."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

import sequencer_models
from pipeline.inference.model_card import ModelCard
from sequencer_models import catalog, inference


def write_weights(network: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """Write the weights, and beside them the package that builds the network; `about` is kept in the file."""
    path.write_bytes(save({name: value.contiguous() for name, value in network.state_dict().items()}, dict(about)))
    source = Path(sequencer_models.__file__).parent
    shutil.copytree(source, path.with_name(source.name), ignore=shutil.ignore_patterns("__pycache__"))


class SafetensorsClassifier:
    """A network built anew from a model's `model.json`, with the weights in the file."""

    def __init__(self, path: Path, card: Path) -> None:
        self._card = read = ModelCard.from_json(json.loads(card.read_bytes()))
        self._network = catalog.build(read.model, len(read.classes), **read.architecture)
        self._network.load_state_dict(load_file(path))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities (N x K) of pixels (N x 32 x 32 x 3)."""
        card = self._card
        return inference.probabilities(self._network, pixels, card.mean, card.std, mirrored=card.mirrored)
