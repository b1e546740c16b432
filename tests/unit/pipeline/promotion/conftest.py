import pytest
from paired_predictions import predictions_of

from pipeline.evaluation.predictions import Predictions


@pytest.fixture
def two_thousand() -> tuple[Predictions, Predictions]:
    """Of 2000 images 1700 are right for both; only the first is right on 60, only the second on 100."""
    first = [1] * 1700 + [1] * 60 + [0] * 100 + [0] * 140
    second = [1] * 1700 + [0] * 60 + [1] * 100 + [0] * 140
    return predictions_of(first), predictions_of(second, confidence=0.9)
