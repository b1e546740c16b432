import pytest

from pipeline.config.difference import ABSENT, differences, first_few

BEFORE = {"seed": 0, "train": {"epochs": 11, "augment": {"flip": True, "cutout_pixels": 0}}, "gone": 1}
AFTER = {"train": {"augment": {"flip": True, "cutout_pixels": 8}, "epochs": 20}, "seed": 0, "new": [1, 2]}


def test_what_differs_is_named_by_dotted_keys_in_the_order_of_the_new_side():
    found = {each.key: (each.before, each.after) for each in differences(BEFORE, AFTER)}
    assert found == {
        "train.augment.cutout_pixels": (0, 8), "train.epochs": (11, 20), "new": (ABSENT, [1, 2]), "gone": (1, ABSENT),
    }  # fmt: skip
    assert list(found) == ["train.augment.cutout_pixels", "train.epochs", "new", "gone"]


def test_equal_sides_do_not_differ():
    assert list(differences(BEFORE, BEFORE)) == []


def test_a_setting_that_is_left_out_has_its_default():
    assert [each.in_words() for each in differences({}, {"mirrored": True})] == ["mirrored: default -> True"]
    assert list(differences({}, {"folder": None})) == [], "null, which is no value either"


def test_a_group_that_became_a_value_is_one_difference():
    assert [each.key for each in differences({"train": {"epochs": 1}}, {"train": 3})] == ["train"]


def test_a_difference_reads_as_before_and_after():
    assert [each.in_words() for each in differences({"dims": [64, 128]}, {"dims": (32,)})] == ["dims: 64 128 -> 32"]


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d", "e"], "a, b, c and 2 more")]
)
def test_of_many_only_the_first_are_named(names, text):
    assert first_few(names) == text
