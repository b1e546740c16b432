import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.exporting.check import check, in_batches


class Uniform:
    """Remembers in which batches it was asked; `off` is added to one probability."""

    def __init__(self, off: float = 0.0) -> None:
        self.off, self.batches = off, []

    def probabilities(self, pixels):
        self.batches.append(len(pixels))
        found = np.full((len(pixels), 4), 0.25, np.float32)
        found[0, 0] += self.off
        return found


PIXELS = np.zeros((300, 32, 32, 3), np.uint8)
EXPECTED = np.full((300, 4), 0.25, np.float32)


def test_batches_of_several_sizes_are_tried():
    model = Uniform()
    assert check(model, PIXELS, EXPECTED, "r").largest_difference == 0
    assert model.batches == [1, 2, 33, 250, 1, 2, 11]


@pytest.mark.parametrize("off", [2e-4, -2e-4, float("nan")])
def test_a_difference_above_the_limit_is_refused(off):
    with pytest.raises(ModelError, match="not exported"):
        check(Uniform(off), PIXELS, EXPECTED, "r")


def test_a_difference_below_it_is_not():
    assert check(Uniform(5e-5), PIXELS, EXPECTED, "r").largest_difference == pytest.approx(5e-5, rel=0.01)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ModelError, match=r"it gives \(300, 4\) probabilities, not \(300, 3\)"):
        check(Uniform(), PIXELS, EXPECTED[:, :3], "r")


def test_in_batches_keeps_the_order():
    class First:
        def probabilities(self, pixels):
            return pixels[:, 0, 0, :1].astype(np.float32)

    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    assert in_batches(First(), pixels, (3, 2))[:, 0].tolist() == [*range(10)]
