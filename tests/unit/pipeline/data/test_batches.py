import numpy as np
import pytest
import torch

from pipeline.config.schema import AugmentConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches, derive_seed, plain_batches

NONE = AugmentConfig(translate_pixels=0, flip=False, cutout_pixels=0)
IDENTITY = Normalisation((0.0,) * 3, (1.0,) * 3)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, 32, 32), generator=draws(seed)).to(torch.uint8)  # 0 only where blanked


def split(count: int) -> LabelledImages:
    pixels = images(count).permute(0, 2, 3, 1).contiguous().numpy()
    return LabelledImages(pixels, np.arange(count, dtype=np.int64))


def batches(count: int = 10, batch_size: int = 4, augment: AugmentConfig = NONE, seed: int = 0) -> TrainBatches:
    return TrainBatches(split(count), IDENTITY, augment, batch_size, seed)


def test_an_epoch_has_every_image_once_with_its_label_in_a_new_order_each_time():
    source = batches()
    orders = []
    for epoch in range(3):
        found = list(source.epoch(epoch))
        assert [len(batch) for batch in found] == [4, 4, 2]
        labels = torch.cat([batch.labels for batch in found])
        pixels = torch.cat([batch.images for batch in found])
        assert labels.sort().values.tolist() == list(range(10))
        assert torch.equal(pixels, images(10)[labels].float())
        orders.append(tuple(labels.tolist()))
    assert len(set(orders)) == 3
    assert len(source) == 3


def test_the_same_seed_epoch_and_position_give_the_same_batch_and_any_other_another():
    def batch(seed: int = 0, epoch: int = 0, index: int = 0) -> torch.Tensor:
        same = LabelledImages(split(1).images.repeat(12, 0), np.zeros(12, np.int64))  # so that only the draws differ
        source = TrainBatches(same, IDENTITY, AugmentConfig(cutout_pixels=8), 4, seed)
        return list(source.epoch(epoch))[index].images

    assert torch.equal(batch(), batch())
    for other in (batch(seed=1), batch(epoch=1), batch(index=1)):
        assert not torch.equal(batch(), other)


def mirrored_in(epoch: int, count: int = 200, seed: int = 0, first: int = 0) -> dict[int, bool]:
    """Which images are mirrored in an epoch."""
    source = batches(count, 16, AugmentConfig(translate_pixels=0, alternating_flip=True), seed)
    originals, found = images(count).float(), {}
    for batch in source.epoch(epoch, first):
        for moved, number in zip(batch.images, batch.labels.tolist(), strict=True):
            found[number] = not torch.equal(moved, originals[number])
            assert torch.equal(moved, originals[number].flip(2) if found[number] else originals[number])
    return found


def test_an_alternating_flip_shows_each_image_and_its_mirror_image_in_turn():
    first, second, third = (mirrored_in(epoch) for epoch in range(3))
    assert second == {number: not mirrored for number, mirrored in first.items()}
    assert third == first
    assert 70 <= sum(first.values()) <= 130


def test_without_a_flip_none_alternates():
    plain = AugmentConfig(translate_pixels=0, flip=False)
    for epoch in (0, 1):
        pairs = zip(
            batches(8, 16, plain.model_copy(update={"alternating_flip": True})).epoch(epoch),
            batches(8, 16, plain).epoch(epoch),
            strict=True,
        )
        assert all(torch.equal(one.images, other.images) for one, other in pairs)


def test_an_alternating_flip_depends_on_seed_epoch_and_image_alone():
    whole = mirrored_in(0)
    assert mirrored_in(0, seed=1) != whole
    assert mirrored_in(0, count=150) == {number: whole[number] for number in range(150)}
    rest = mirrored_in(0, first=5)
    assert rest == {number: whole[number] for number in rest}


def test_so_many_batches_are_mixed_as_is_asked_for_and_the_others_stay_as_they_are():
    plain = list(batches(400, 4).epoch(0))
    for share, least, most in ((0.0, 0, 0), (0.4, 25, 55), (1.0, 100, 100)):
        found = list(batches(400, 4, NONE.model_copy(update={"cutmix": share})).epoch(0))
        mixed = [batch.labels_beside is not None for batch in found]
        assert least <= sum(mixed) <= most
        for is_mixed, batch, before in zip(mixed, found, plain, strict=True):
            assert is_mixed or torch.equal(batch.images, before.images)
            assert set(batch.labels.tolist()) == set(before.labels.tolist())


def test_which_batches_are_mixed_and_how_depends_on_seed_epoch_and_position():
    def share(seed: int = 0, epoch: int = 0, index: int = 0) -> float:
        return list(batches(12, 4, AugmentConfig(cutmix=1.0), seed).epoch(epoch))[index].share

    assert share() == share()
    assert len({share(), share(seed=1), share(epoch=1), share(index=1)}) == 4


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_an_epoch_resumed_in_the_middle_gives_the_remaining_batches(first):
    source = batches(augment=AugmentConfig(cutmix=0.5))
    whole, rest = list(source.epoch(2)), list(source.epoch(2, first=first))
    assert len(rest) == 3 - first
    for found, expected in zip(rest, whole[first:], strict=True):
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert found.share == expected.share


def test_batches_do_not_touch_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(batches(augment=AugmentConfig(cutout_pixels=4, alternating_flip=True, cutmix=1.0)).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_normalising_gives_zero_mean_and_unit_variance_in_each_channel():
    pixels = images(50)
    mean, std = pixels.float().mean((0, 2, 3)), pixels.float().std((0, 2, 3), correction=0)
    found = Normalisation(tuple(mean.tolist()), tuple(std.tolist()))(pixels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    exact = Normalisation((10.0, 20.0, 30.0), (2.0, 4.0, 5.0))(torch.full((1, 3, 1, 1), 40, dtype=torch.uint8))
    assert exact.flatten().tolist() == [15.0, 5.0, 2.0]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_plain_batches_come_in_order_and_as_they_are(batch_size):
    found = list(plain_batches(split(10), IDENTITY, batch_size))
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(10))
    assert torch.equal(torch.cat([pixels for pixels, _ in found]), images(10).float())


def test_a_split_is_mapped_and_not_loaded(tmp_path):
    made = split(6)
    np.save(tmp_path / "train_images.npy", made.images)
    np.save(tmp_path / "train_labels.npy", made.labels)
    opened = LabelledImages.open(tmp_path, "train")
    assert len(opened) == 6
    assert isinstance(opened.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.images[0] = 0
    source = TrainBatches(opened, IDENTITY, NONE, 4, 0)
    expected = TrainBatches(made, IDENTITY, NONE, 4, 0)
    assert all(torch.equal(a.images, b.images) for a, b in zip(source.epoch(0), expected.epoch(0), strict=True))
    assert len(list(plain_batches(opened, IDENTITY, 4))) == 2


def test_a_derived_seed_depends_on_every_part_and_is_the_same_on_every_machine():
    assert derive_seed(0, "weights") == 133441691874178746
    seeds = {derive_seed(*parts) for parts in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0,)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
