from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipeline.evaluation.predictions import Predictions

MakePredictions = Callable[..., Predictions]


@pytest.fixture
def make_predictions() -> MakePredictions:
    def make(
        labels: Sequence[int],
        probabilities: Sequence[Sequence[float]],
        class_names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
    ) -> Predictions:
        return Predictions(
            ids=np.array(range(len(labels)) if ids is None else ids, dtype=np.int64),
            labels=np.array(labels, dtype=np.int64),
            probabilities=np.array(probabilities, dtype=np.float32),
            class_names=tuple(class_names or ("airplane", "automobile", "bird", "cat")[: len(probabilities[0])]),
        )

    return make


@pytest.fixture
def random_predictions() -> Callable[[int, int], Predictions]:
    def make(images: int, classes: int) -> Predictions:
        generator = np.random.default_rng(7)
        labels = generator.integers(0, classes, images)
        probabilities = generator.dirichlet(np.ones(classes), images)
        probabilities[np.arange(images), labels] += 0.5
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        names = tuple(f"class {k}" for k in range(classes))
        return Predictions(np.arange(images), labels, probabilities.astype(np.float32), names)

    return make
