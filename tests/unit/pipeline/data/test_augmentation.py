import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import AugmentConfig
from pipeline.data.augmentation import augmented

NONE = AugmentConfig(translate_pixels=0, flip=False, cutout_pixels=0)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, 32, 32), generator=draws(seed)).to(torch.uint8)  # 0 only where blanked


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
        AugmentConfig,
        translate_pixels=st.integers(0, 16),
        padding=st.sampled_from(["zeros", "reflect"]),
        flip=st.booleans(),
        cutout_pixels=st.integers(0, 32),
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


@pytest.mark.parametrize("reach", [1, 4, 16])
def test_a_reflected_border_is_the_one_that_torch_makes(reach):
    before = images(40)
    after = augmented(before, one(translate_pixels=reach, padding="reflect"), draws())
    padded = torch.nn.functional.pad(before.float(), (reach,) * 4, mode="reflect").to(torch.uint8)
    blank = augmented(before, one(translate_pixels=reach), draws())
    top, left = torch.randint(0, 2 * reach + 1, (2, len(before), 1), generator=draws())
    for moved, source, y, x in zip(after, padded, top.flatten().tolist(), left.flatten().tolist(), strict=True):
        assert torch.equal(moved, source[:, y : y + 32, x : x + 32])
    assert torch.equal(torch.where(blank > 0, blank, after), after), "the same shifts as with zeros"
    assert (after > 0).all()


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    before = images(200)
    after = augmented(before, one(flip=True), draws())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(after, before, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 <= sum(mirrored) <= 130


def test_which_images_are_mirrored_may_be_given():
    before = images(6)
    mirrored = torch.tensor([True, False, False, True, True, False])
    generator = draws()
    after = augmented(before, one(flip=True), generator, mirrored)
    assert [torch.equal(a, b.flip(2)) for a, b in zip(after, before, strict=True)] == mirrored.tolist()
    assert torch.equal(generator.get_state(), draws().get_state()), "nothing is drawn"


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
