"""Tiny models that are exported, and test images for them."""

import numpy as np
import torch

from pipeline.exporting.evaluation_images import EvaluationImages
from pipeline.inference.classifier import Classifier
from pipeline.inference.model_card import ModelCard
from pipeline.tracking.version_choice import StoredVersion
from sequencer_models import catalog

CLASSES = ("airplane", "bird", "cat")
TINY = {
    "small": {"dims": (8, 16), "depths": (1, 1)},
    "medium": {"dims": (8, 16, 16), "depths": (1, 1, 1)},
    "vanilla": {"hidden": 8, "layers": 2},
}


def tiny_classifier(model: str = "vanilla", mirrored: bool = False, **options: object) -> Classifier:
    """A model of random weights, with options of its architecture."""
    torch.manual_seed(0)
    architecture = {**TINY[model], **options}
    card = ModelCard(
        model, architecture, CLASSES, (125.0, 122.0, 113.0), (51.0, 50.0, 52.0), mirrored=mirrored, accuracy=0.75
    )
    network = catalog.build(model, len(CLASSES), **architecture).eval()
    return Classifier(network, card, StoredVersion("m", "3", ("champion",), "r1", "file:///x"))


def some_images() -> EvaluationImages:
    """Sixty images of noise."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 3, 60)
    return EvaluationImages(draws.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), labels, np.arange(60))
