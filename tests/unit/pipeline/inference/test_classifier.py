"""What a loaded model takes and gives."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def classifier(model_folder):
    return model_folder.read()


def test_files_open_files_and_pillow_images_are_classified_alike(classifier, tmp_path):
    image = Image.fromarray(PIXELS[0])
    image.save(tmp_path / "x.png")
    with io.BytesIO((tmp_path / "x.png").read_bytes()) as file:
        found = classifier.predict([str(tmp_path / "x.png"), tmp_path / "x.png", file, image])
    assert found == found[:1] * 4
    np.testing.assert_allclose(found[0].probabilities, classifier.probabilities(PIXELS[:1])[0], atol=1e-7)
    assert found[0].classes == classifier.classes


def test_an_image_that_cannot_be_read_is_named(classifier, tmp_path):
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ImageError, match=r"x\.png: not a PNG"):
        classifier.predict([tmp_path / "x.png"])
    with pytest.raises(ImageError, match="BytesIO: not a PNG"):
        classifier.predict([io.BytesIO(b"no image")])


def test_a_name_is_not_taken_for_a_list_of_letters(classifier):
    with pytest.raises(TypeError, match="predict takes a list of images"):
        classifier.predict("cat.png")


def test_no_images_give_no_predictions(classifier):
    assert classifier.predict([]) == []
    assert classifier.probabilities(PIXELS[:0]).shape == (0, 3)


def test_more_than_a_batch_is_the_same_as_one_by_one(classifier):
    many = np.concatenate([PIXELS] * 70)
    np.testing.assert_allclose(classifier.probabilities(many)[-4:], classifier.probabilities(PIXELS), atol=1e-6)


@pytest.mark.parametrize("wrong", [PIXELS[0], PIXELS / 255, PIXELS[:, :16], PIXELS.astype(int)])
def test_other_pixels_are_refused(classifier, wrong):
    with pytest.raises(ValueError, match="pixels must be N x 32 x 32 x 3 of uint8"):
        classifier.probabilities(wrong)


def test_it_says_what_it_is(classifier):
    assert repr(classifier) == "<vanilla of m, version 3 (champion): airplane, bird, cat>"


def test_a_model_that_was_evaluated_with_mirrored_views_classifies_with_them(classifier, model_folder):
    mirror_images = np.ascontiguousarray(PIXELS[:, :, ::-1])
    expected = (classifier.probabilities(PIXELS) + classifier.probabilities(mirror_images)) / 2
    model_folder.write(mirrored=True)
    np.testing.assert_allclose(model_folder.read().probabilities(PIXELS), expected, atol=1e-7)
    assert not np.allclose(expected, classifier.probabilities(PIXELS), atol=1e-4)
