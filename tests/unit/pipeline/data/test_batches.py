import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import AugmentConfig
from pipeline.data.batches import Normalisation, Split, TrainBatches, augmented, derive_seed, plain_batches

NONE = AugmentConfig(translate_pixels=0, flip=False, cutout_pixels=0)
IDENTITY = Normalisation((0.0,) * 3, (1.0,) * 3)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, 32, 32), generator=draws(seed)).to(torch.uint8)  # 0 only where blanked


def split(count: int) -> Split:
    pixels = images(count).permute(0, 2, 3, 1).contiguous().numpy()
    return Split(pixels, np.arange(count, dtype=np.int64))


def batches(count: int = 10, batch_size: int = 4, augment: AugmentConfig = NONE, seed: int = 0) -> TrainBatches:
    return TrainBatches(split(count), IDENTITY, augment, batch_size, seed)


def one(**changes: object) -> AugmentConfig:
    return AugmentConfig.model_validate(NONE.model_dump() | changes)


def is_shift(moved: torch.Tensor, original: torch.Tensor, down: int, right: int) -> bool:
    """Whether an image (C x H x W) is another one moved, with 0 where nothing came from."""
    expected = torch.zeros_like(original)
    height, width = 32 - abs(down), 32 - abs(right)
    to_y, to_x, from_y, from_x = max(down, 0), max(right, 0), max(-down, 0), max(-right, 0)
    expected[:, to_y : to_y + height, to_x : to_x + width] = original[
        :, from_y : from_y + height, from_x : from_x + width
    ]
    return torch.equal(moved, expected)


def test_without_augmentation_images_stay_as_they_are():
    before = images(5)
    assert torch.equal(augmented(before, NONE, draws()), before)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6),
    st.builds(
        AugmentConfig, translate_pixels=st.integers(0, 16), flip=st.booleans(), cutout_pixels=st.integers(0, 32)
    ),
    st.integers(0, 2**32),
)
def test_augmentation_keeps_shape_and_type_and_leaves_its_input_alone(count, config, seed):
    before = images(count)
    kept = before.clone()
    after = augmented(before, config, draws(seed))
    assert (after.shape, after.dtype) == (before.shape, torch.uint8)
    assert torch.equal(before, kept)


@pytest.mark.parametrize("reach", [1, 2])
def test_translation_moves_each_image_by_at_most_the_reach_and_pads_with_zero(reach):
    before = images(60)
    after = augmented(before, one(translate_pixels=reach), draws())
    reached = set()
    for moved, original in zip(after, before, strict=True):
        steps = range(-reach, reach + 1)
        found = [(down, right) for down in steps for right in steps if is_shift(moved, original, down, right)]
        assert len(found) == 1
        reached.add(found[0])
    assert {down for down, _ in reached} == {right for _, right in reached} == set(range(-reach, reach + 1))


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    before = images(200)
    after = augmented(before, one(flip=True), draws())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(after, before, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 <= sum(mirrored) <= 130


@pytest.mark.parametrize("side", [1, 5, 8, 32])
def test_cutout_blanks_one_rectangle_of_at_most_its_side_in_each_image(side):
    before = images(100)
    after = augmented(before, one(cutout_pixels=side), draws())
    areas = []
    for cut, original in zip(after, before, strict=True):
        blank = (cut == 0).all(0)
        assert torch.equal(cut[:, ~blank], original[:, ~blank])
        assert torch.equal((cut == 0).any(0), blank)  # in every channel alike
        rows, columns = blank.any(1), blank.any(0)
        assert torch.equal(blank, rows[:, None] & columns)
        assert max(int(rows.sum()), int(columns.sum())) <= side
        areas.append(int(blank.sum()))
    assert min(areas) >= (side // 2) ** 2
    assert max(areas) == side**2 or side == 32
    assert len(set(areas)) > 1 or side == 1


def test_every_image_of_a_batch_has_its_own_draws():
    same = images(1).repeat(64, 1, 1, 1)
    for config in (one(translate_pixels=4), one(flip=True), one(cutout_pixels=8)):
        assert len(augmented(same, config, draws()).flatten(1).unique(dim=0)) > 1


def test_an_epoch_has_every_image_once_with_its_label_in_a_new_order_each_time():
    source = batches()
    orders = []
    for epoch in range(3):
        found = list(source.epoch(epoch))
        assert [len(labels) for _, labels in found] == [4, 4, 2]
        labels = torch.cat([labels for _, labels in found])
        pixels = torch.cat([pixels for pixels, _ in found])
        assert labels.sort().values.tolist() == list(range(10))
        assert torch.equal(pixels, images(10)[labels].float())
        orders.append(tuple(labels.tolist()))
    assert len(set(orders)) == 3
    assert len(source) == 3


def test_the_same_seed_epoch_and_position_give_the_same_batch_and_any_other_another():
    def batch(seed: int = 0, epoch: int = 0, index: int = 0) -> torch.Tensor:
        same = Split(split(1).images.repeat(12, 0), np.zeros(12, np.int64))  # so that only the draws differ
        source = TrainBatches(same, IDENTITY, AugmentConfig(cutout_pixels=8), 4, seed)
        return list(source.epoch(epoch))[index][0]

    assert torch.equal(batch(), batch())
    for other in (batch(seed=1), batch(epoch=1), batch(index=1)):
        assert not torch.equal(batch(), other)


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_an_epoch_that_goes_on_in_the_middle_gives_the_batches_that_were_left(first):
    source = batches(augment=AugmentConfig())
    whole, rest = list(source.epoch(2)), list(source.epoch(2, first=first))
    assert len(rest) == 3 - first
    for (pixels, labels), (expected, truth) in zip(rest, whole[first:], strict=True):
        assert torch.equal(pixels, expected)
        assert torch.equal(labels, truth)


def test_batches_do_not_touch_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(batches(augment=AugmentConfig(cutout_pixels=4)).epoch(0))
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
    opened = Split.open(tmp_path, "train")
    assert len(opened) == 6
    assert isinstance(opened.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.images[0] = 0
    source = TrainBatches(opened, IDENTITY, NONE, 4, 0)
    expected = TrainBatches(made, IDENTITY, NONE, 4, 0)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(source.epoch(0), expected.epoch(0), strict=True))
    assert len(list(plain_batches(opened, IDENTITY, 4))) == 2


def test_a_derived_seed_depends_on_every_part_and_is_the_same_on_every_machine():
    assert derive_seed(0, "weights") == 133441691874178746
    seeds = {derive_seed(*parts) for parts in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0,)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
