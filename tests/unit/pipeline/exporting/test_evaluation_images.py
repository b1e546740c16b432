import numpy as np
import pytest

from pipeline.data.prepared import PreparedData
from pipeline.errors import DataError
from pipeline.exporting.evaluation_images import EvaluationImages, evaluation_images
from pipeline.inference.model_card import ModelCard
from pipeline.workspace.paths import Workspace


def test_they_are_found_by_the_hash_of_the_data(house, monkeypatch):
    arrays = {
        "test_images": np.ones((2, 32, 32, 3), np.uint8),
        "test_labels": np.array([1, 0]),
        "test_ids": np.arange(2),
    }
    monkeypatch.setattr(PreparedData, "array", lambda self, name: arrays[name])
    outcome = house.run(through="prepare")
    prepared = outcome.results[PreparedData]
    card = ModelCard("small", {}, ("a", "b"), (0.0,) * 3, (1.0,) * 3, data_hash=prepared.data_hash)
    found = evaluation_images(card, house.workspace)
    np.testing.assert_array_equal(found.pixels, arrays["test_images"])
    assert found.labels.tolist() == [1, 0]


@pytest.mark.parametrize("data_hash", [None, "0123"])
def test_without_them_it_says_what_brings_them(tmp_path, data_hash):
    card = ModelCard("small", {}, ("a", "b"), (0.0,) * 3, (1.0,) * 3, data_hash=data_hash)
    with pytest.raises(DataError, match="cannot be checked\n`seqpipe run prepare` with the settings"):
        evaluation_images(card, Workspace(tmp_path))


def test_some_of_them_are_spread_over_all():
    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    images = EvaluationImages(pixels, np.zeros(100, np.int64), np.arange(100))
    assert images.spread(3)[:, 0, 0, 0].tolist() == [0, 50, 99]
    assert len(images.spread(1000)) == 100
