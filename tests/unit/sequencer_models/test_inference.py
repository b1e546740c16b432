import numpy as np
import pytest
import torch
from torch import nn

from sequencer_models import catalog
from sequencer_models.inference import probabilities

MEAN, STD = (120.0, 125.0, 130.0), (60.0, 61.0, 62.0)
SMALL = {
    "vanilla": {"hidden": 8, "layers": 1, "dropout": 0.3},
    "small": {"dims": (8, 16), "depths": (1, 1), "grid": 4, "dropout": 0.3, "drop_path": 0.3},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3)).astype(np.uint8)


class MeanOfChannels(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


@pytest.mark.parametrize("name", SMALL)
def test_the_batch_size_changes_no_prediction(name):
    model = catalog.build(name, 4, **SMALL[name])
    whole = probabilities(model, IMAGES, MEAN, STD)
    for size in (1, 4, 11, 100):
        found = probabilities(model, IMAGES, MEAN, STD, batch_size=size)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-7)
        assert (found.argmax(1) == whole.argmax(1)).all()


def test_probabilities_are_float32_between_0_and_1_and_sum_to_1_for_each_image():
    found = probabilities(catalog.build("vanilla", 4, **SMALL["vanilla"]), IMAGES, MEAN, STD, batch_size=4)
    assert (found.shape, found.dtype) == ((11, 4), np.float32)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_pixels_are_normalised_by_channel_before_the_model_sees_them():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[:] = (130, 105, 140)
    found = probabilities(MeanOfChannels(), images, (120.0, 125.0, 130.0), (10.0, 10.0, 5.0))
    np.testing.assert_allclose(found, torch.softmax(torch.tensor([[1.0, -2.0, 2.0]]), 1), rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_mirrored_is_the_mean_of_an_image_and_its_mirror_image(name):
    model = catalog.build(name, 4, **SMALL[name])
    found = probabilities(model, IMAGES, MEAN, STD, mirrored=True, batch_size=4)
    one_by_one = [probabilities(model, images, MEAN, STD) for images in (IMAGES, IMAGES[:, :, ::-1])]
    np.testing.assert_allclose(found, (one_by_one[0] + one_by_one[1]) / 2, rtol=1e-5)
    assert found.dtype == np.float32
    assert not np.allclose(found, one_by_one[0], atol=1e-4), "the mirror image is another one to these models"
    of_mirrors = probabilities(model, IMAGES[:, :, ::-1], MEAN, STD, mirrored=True)
    np.testing.assert_allclose(found, of_mirrors, rtol=1e-5)


def test_no_images_give_no_probabilities():
    assert len(probabilities(MeanOfChannels(), IMAGES[:0], MEAN, STD)) == 0


def test_a_model_in_training_mode_or_in_half_precision_predicts_as_in_evaluation_in_fp32():
    model = catalog.build("vanilla", 4, **SMALL["vanilla"])
    expected = probabilities(model.eval(), IMAGES, MEAN, STD)
    np.testing.assert_array_equal(probabilities(model.train(), IMAGES, MEAN, STD), expected)
    halved = probabilities(model.bfloat16(), IMAGES, MEAN, STD)
    assert halved.dtype == np.float32
    np.testing.assert_allclose(halved, expected, atol=0.05)


def test_the_caller_learns_how_many_images_are_done():
    told = []
    probabilities(MeanOfChannels(), IMAGES, MEAN, STD, batch_size=4, done=told.append)
    assert told == [4, 8, 11]


def test_images_may_be_mapped_read_only(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    expected = probabilities(MeanOfChannels(), IMAGES, MEAN, STD)
    np.testing.assert_array_equal(probabilities(MeanOfChannels(), mapped, MEAN, STD), expected)
