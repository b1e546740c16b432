import numpy as np
import pytest
import torch

from sequencer_models import catalog
from sequencer_models.stems import ConvStem
from sequencer_models.whitening import EPS, whiten, whitening_filters

TINY = {"dims": (64, 64), "depths": (1, 1), "stem": "deep"}


def images_like(count: int) -> torch.Tensor:
    """Neighbouring pixels and channels go together, as in photographs, and the mean is not 0."""
    noise = torch.randn(count, 3, 32, 32)
    return 0.3 + noise.cumsum(2).cumsum(3) / 30 + 0.5 * noise.sum(1, keepdim=True)


def patches_of(images: torch.Tensor) -> np.ndarray:
    """Every 3x3 window that lies inside, one in each row, in the order of a convolution's weights."""
    windows = [
        images[:, :, row : row + 3, column : column + 3].flatten(1)
        for row in range(images.shape[2] - 2)
        for column in range(images.shape[3] - 2)
    ]
    return torch.cat(windows).double().numpy()


def stem_of(model: torch.nn.Module) -> ConvStem:
    [stem] = [module for module in model.modules() if isinstance(module, ConvStem)]
    return stem


def test_what_the_filters_give_is_uncorrelated_and_of_the_variance_of_the_definition():
    images = images_like(60)  # two parts of `AT_ONCE`
    model = catalog.build("small", 4, **TINY, stem_width=54, whitened=True)
    whiten(model, [images])
    filters = stem_of(model).convs[0].weight.detach().flatten(1).double().numpy()[::2]  # one of each pair
    found = np.cov(patches_of(images) @ filters.T, rowvar=False, bias=True)
    values = np.linalg.eigvalsh(np.cov(patches_of(images), rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(found, np.diag(values / (values + EPS)), atol=1e-4)


@pytest.mark.parametrize(
    ("count", "expected"), [(4, [0, 0, 1, 1]), (6, [0, 0, 1, 1, 2, 2]), (9, [0, 0, 1, 1, 2, 2, 0, 0, 1])]
)
def test_pairs_of_both_signs_come_by_eigenvalue_and_are_cut_or_begin_again(count, expected):
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    covariance = torch.from_numpy(turned @ np.diag([0.5, 4.0, 1.0]) @ turned.T)
    vectors = [turned[:, 1] / np.sqrt(4 + EPS), turned[:, 2] / np.sqrt(1 + EPS), turned[:, 0] / np.sqrt(0.5 + EPS)]
    filters = whitening_filters(covariance, count).numpy()
    assert len(filters) == count
    for n, (found, pair) in enumerate(zip(filters, expected, strict=True)):
        sign = np.sign(vectors[pair][np.abs(vectors[pair]).argmax()]) * (1 if n % 2 == 0 else -1)
        np.testing.assert_allclose(found, sign * vectors[pair], atol=1e-9)


def test_the_batches_change_nothing_and_no_random_number_is_drawn():
    images, found = images_like(120), []
    random = torch.get_rng_state()
    for batches in ([images], images.split(7), iter(images.split(50))):
        model = catalog.build("small", 4, **TINY, whitened=True)
        torch.set_rng_state(random)
        whiten(model, batches)
        assert torch.equal(torch.get_rng_state(), random)
        found.append(stem_of(model).convs[0].weight.detach())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_nothing_but_the_filters_changes_and_they_stay_fixed():
    model = catalog.build("small", 4, **TINY, whitened=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whiten(model, [images_like(10)])
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["stem.convs.0.weight"]
    assert not stem_of(model).convs[0].weight.requires_grad
    assert stem_of(model).convs[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "fields"), [("small", TINY), ("small", {"dims": (8, 8), "depths": (1, 1)}), ("vanilla", {})]
)
def test_a_model_without_a_whitened_stem_stays_and_asks_for_no_image(name, fields):
    model = catalog.build(name, 4, **fields)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whiten(model, (pytest.fail("an image was asked for") for _ in range(1)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_directions_in_which_images_do_not_vary_are_not_blown_up():
    model = catalog.build("small", 4, **TINY, whitened=True)
    whiten(model, [torch.ones(3, 3, 32, 32)])
    assert stem_of(model).convs[0].weight.abs().max() <= EPS**-0.5 + 1e-3
