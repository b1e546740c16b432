import pytest
import torch

from pipeline.data.batch import Batch
from pipeline.data.cutmix import cut_mixed


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int) -> Batch:
    """Image n is n everywhere, and shows class n."""
    labels = torch.arange(count)
    return Batch(labels.float().view(-1, 1, 1, 1).repeat(1, 3, 32, 32), labels)


def test_each_image_has_one_rectangle_of_another_at_the_same_place_in_all():
    for seed in range(50):
        mixed = cut_mixed(numbered(6), draws(seed))
        own = torch.arange(6).view(-1, 1, 1, 1)
        foreign = mixed.images != own
        partners = {value for image in mixed.images for value in image.unique().tolist()}
        assert partners <= set(range(6))
        place = foreign.any(0).all(0)  # of those images that did not draw themselves
        for image, of_others in zip(mixed.images, foreign, strict=True):
            assert torch.equal(of_others.any(0), place) or not of_others.any()
            assert len(image[:, place].unique()) <= 1
        rows, columns = place.any(1), place.any(0)
        assert torch.equal(place, rows[:, None] & columns)


def test_labels_and_shares_are_those_of_the_pixels():
    for seed in range(50):
        mixed = cut_mixed(numbered(6), draws(seed))
        assert 0.5 <= mixed.share <= 1
        for image, label, beside in zip(mixed.images, mixed.labels, mixed.labels_beside, strict=True):
            share = 1.0 if label == beside else mixed.share
            assert (image == label).float().mean().item() == pytest.approx(share)
            assert (image == beside).float().mean().item() == pytest.approx(1.0 if label == beside else 1 - share)


def test_shares_of_all_sizes_are_drawn_and_each_image_is_cut_into_one_other():
    shares, partners = [], set()
    for seed in range(300):
        mixed = cut_mixed(numbered(4), draws(seed))
        shares.append(mixed.share)
        assert sorted(mixed.labels_beside.tolist()) == sorted(mixed.labels.tolist()) == [0, 1, 2, 3]
        partners.add(tuple(mixed.labels_beside.tolist()))
    assert min(shares) < 0.52
    assert max(shares) > 0.98
    assert len(partners) == 24


@pytest.mark.parametrize("area", [0.25, 0.5625, 1.0])
def test_what_is_drawn_evenly_is_the_area_and_not_the_side(monkeypatch, area):
    """The paper's alpha of 1."""
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.tensor([area, 0.5, 0.5]))
    assert cut_mixed(numbered(2), draws()).share == max(area, 1 - area)


def test_at_a_corner_a_quarter_of_it_is_left(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.tensor([0.25, 0.0, 0.0]))
    assert cut_mixed(numbered(2), draws()).share == 1 - 0.25 / 4


def test_the_batch_that_is_given_stays_as_it_is():
    batch = numbered(5)
    cut_mixed(batch, draws())
    assert torch.equal(batch.images, numbered(5).images)
    assert batch.labels_beside is None


def test_a_batch_of_one_image_is_mixed_with_itself():
    mixed = cut_mixed(numbered(1), draws())
    assert torch.equal(mixed.images, numbered(1).images)
