"""The model that a server answers with, which another may take the place of."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import ModelError
from pipeline.inference.classifier import Classifier
from pipeline.inference.images import SIDE


class ServedModel:
    """The model of the requests to come. `told` gets each model that becomes it."""

    def __init__(
        self, classifier: Classifier, told: Callable[[Classifier], object] = lambda classifier: None
    ) -> None:
        self._told = told
        self._current = self._warm(classifier)

    def current(self) -> Classifier:
        return self._current

    def replace(self, classifier: Classifier) -> None:
        """Answer with another model from the next request on; it is tried before.

        Raises:
            ModelError: its classes are others, or others in order: whoever asks this server relies on them.
        """
        if classifier.classes != self._current.classes:
            raise ModelError(
                f"{classifier.version} has other classes ({', '.join(classifier.classes)}) than the model that is "
                f"served ({', '.join(self._current.classes)}): start the server again to serve it"
            )
        self._current = self._warm(classifier)

    def _warm(self, classifier: Classifier) -> Classifier:
        """Have it compute once, so that the first request need not wait for what is made then."""
        classifier.probabilities(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        self._told(classifier)
        return classifier
