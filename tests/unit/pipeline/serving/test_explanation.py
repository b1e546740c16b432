"""Which squares are covered, and what is made of the probabilities."""

import numpy as np

from pipeline.serving import explanation

IMAGE = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)


def test_the_first_image_is_whole_and_every_pixel_is_covered_equally_often():
    made = explanation.covered(IMAGE, (0.0, 0.0, 0.0))
    assert made.shape == (82, 32, 32, 3)
    np.testing.assert_array_equal(made[0], IMAGE)
    times = (made[1:] == 0).all(axis=3).sum(axis=0)
    assert (times == 4).all()


def test_what_is_covered_has_the_mean_colour():
    made = explanation.covered(IMAGE, (12.4, 200.6, 300.0))
    assert made[1, 0, 0].tolist() == [12, 201, 255]
    np.testing.assert_array_equal(made[1, 4:], IMAGE[4:])


def test_a_cell_has_the_mean_fall_of_the_four_squares_over_it_for_each_class():
    probabilities = np.full((82, 2), [0.9, 0.1], np.float32)
    row, column = 3, 5  # the square over cells (2..3, 4..5)
    probabilities[1 + 9 * row + column] = [0.5, 0.5]
    found = explanation.drops(probabilities)
    assert found.shape == (2, 8, 8)
    hit = np.argwhere(np.abs(found[0]) > 1e-6).tolist()
    assert hit == [[2, 4], [2, 5], [3, 4], [3, 5]]
    np.testing.assert_allclose(found[:, 2, 4], [0.1, -0.1], atol=1e-6)
