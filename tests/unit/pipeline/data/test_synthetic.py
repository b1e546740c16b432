import numpy as np

from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.data.synthetic import SyntheticSpec, make


def test_the_same_spec_makes_the_same_images_and_another_seed_makes_others():
    spec = SyntheticSpec(train_per_class=3, test_per_class=2)
    first, second = list(make(spec)), list(make(spec))
    other = list(make(SyntheticSpec(train_per_class=3, test_per_class=2, seed=1)))
    for one, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.images, same.images)
        np.testing.assert_array_equal(one.labels, same.labels)
    assert not np.array_equal(first[0].images, other[0].images)


def test_the_default_size_is_200_and_50_of_each_of_the_ten_class_names():
    train, test = make(SyntheticSpec())
    assert np.bincount(train.labels).tolist() == [200] * len(CIFAR10_CLASSES)
    assert np.bincount(test.labels).tolist() == [50] * len(CIFAR10_CLASSES)
    assert train.images.shape == (2000, 32, 32, 3)
    assert train.images.dtype == np.uint8


def test_it_can_be_learned_but_not_perfectly():
    """Nearest class mean: well above chance (0.1), below what the mixed labels allow."""
    train, test = make(SyntheticSpec())
    means = np.stack([train.images[train.labels == label].mean(0) for label in range(10)]).reshape(10, -1)
    flat = test.images.reshape(len(test.images), -1).astype(float)
    distances = (means**2).sum(1) - 2 * flat @ means.T
    accuracy = (distances.argmin(1) == test.labels).mean()
    assert 0.5 < accuracy < 0.95
