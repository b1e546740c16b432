from collections.abc import Callable

import pytest
from exported_models import some_images, tiny_classifier

from pipeline.exporting.evaluation_images import EvaluationImages
from pipeline.inference.classifier import Classifier


@pytest.fixture
def classifier() -> Callable[..., Classifier]:
    return tiny_classifier


@pytest.fixture
def images() -> EvaluationImages:
    return some_images()
