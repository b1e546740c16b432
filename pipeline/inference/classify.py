"""Classifies files: a batch is computed while the next ones are read."""

from collections.abc import Iterator, Sequence

import torch

from pipeline.inference.classifier import BATCH, Classifier
from pipeline.inference.prediction import Classified, Unreadable
from pipeline.inference.reading import read_batches

MOST_READERS = 8
"""Threads that read: each holds an image, and there are machines with a hundred cores."""


def classify_files(classifier: Classifier, files: Sequence[str]) -> Iterator[list[Classified | Unreadable]]:
    """Classify the images of files, a batch at a time, in their order."""
    readers = min(torch.get_num_threads(), MOST_READERS)
    for batch in read_batches(files, BATCH, readers):
        predictions = iter(classifier.predictions(batch.pixels))
        yield [
            Unreadable(file, outcome) if isinstance(outcome, str) else Classified(file, next(predictions))
            for file, outcome in zip(batch.files, batch.outcomes, strict=True)
        ]
