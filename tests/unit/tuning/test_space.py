import pytest

from tuning.errors import SpaceError
from tuning.space import Choice, Integer, LogUniform, Space, Uniform, canonical

WRITTEN = {
    "train.learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "model.drop_path": {"uniform": [0, 0.3]},
    "model.depth": {"integer": [2, 8, 2]},
    "model.dims": {"choice": [[96, 192], [192, 384]]},
}


def test_a_written_space_is_typed_and_keeps_its_order():
    space = Space.parse(WRITTEN)
    assert list(space) == list(WRITTEN)
    assert space["train.learning_rate"] == LogUniform(1e-4, 1e-2)
    assert space["model.drop_path"] == Uniform(0.0, 0.3)
    assert space["model.depth"] == Integer(2, 8, 2)
    assert space["model.dims"] == Choice(([96, 192], [192, 384]))


def test_a_space_written_out_and_read_is_the_same():
    space = Space.parse(WRITTEN)
    assert Space.parse(space.to_json()).to_json() == space.to_json()


def test_bounds_that_yaml_reads_as_text_are_numbers():
    assert Space.parse({"lr": {"log_uniform": ["1e-4", "1e-2"]}})["lr"] == LogUniform(1e-4, 1e-2)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "empty"),
        (None, "empty"),
        ([1], "mapping"),
        ({"x": {"gaussian": [0, 1]}}, r"search space: x: unknown kind 'gaussian'; there are choice, integer"),
        ({"x": 3}, "x: write one kind"),
        ({"x": {"uniform": [0, 1], "choice": [1]}}, "write one kind"),
        ({"x": {"uniform": [1, 0]}}, r"x: the low bound must be below the high one, not \[1, 0\]"),
        ({"x": {"uniform": [1, 1]}}, "below"),
        ({"x": {"uniform": [0]}}, r"uniform needs \[low, high\]"),
        ({"x": {"uniform": ["a", 1]}}, "'a' is not a number"),
        ({"x": {"uniform": [0, float("inf")]}}, "not a finite number"),
        ({"x": {"log_uniform": [0, 1]}}, "above 0"),
        ({"x": {"log_uniform": [-1, 1]}}, "above 0"),
        ({"x": {"integer": [1, 4.5]}}, "4.5 is not a whole number"),
        ({"x": {"integer": [1, 4, 0]}}, "step"),
        ({"x": {"integer": [4, 1]}}, "below"),
        ({"x": {"choice": []}}, "at least one option"),
        ({"x": {"choice": [[1], [1]]}}, r"\[1\] more than once"),
        ({"x": {"choice": "abc"}}, "needs a list"),
    ],
)
def test_a_space_that_cannot_be_used_is_one_clear_line(written, message):
    with pytest.raises(SpaceError, match=message) as caught:
        Space.parse(written)
    assert "\n" not in str(caught.value)


def test_a_countable_space_is_numbered_without_gap_or_repetition():
    space = Space.parse({"a": {"integer": [1, 7, 3]}, "b": {"choice": ["x", None, [1]]}})
    assert space.size == 9
    assert len({canonical(space.at(index)) for index in range(9)}) == 9
    assert all(not space.outside(space.at(index)) for index in range(9))


def test_a_space_with_a_real_number_cannot_be_counted():
    assert Space.parse(WRITTEN).size is None


def test_values_outside_of_the_space_are_named():
    space = Space.parse(WRITTEN)
    inside = {"train.learning_rate": 1e-3, "model.drop_path": 0, "model.depth": 4, "model.dims": [96, 192]}
    assert space.outside(inside) == []
    outside = {"train.learning_rate": 1.0, "model.drop_path": 0.1, "model.depth": 5, "model.dims": [1]}
    assert space.outside(outside) == ["train.learning_rate", "model.depth", "model.dims"]
    assert space.outside({}) == list(WRITTEN)
    assert space.outside(inside | {"model.depth": True, "model.drop_path": True}) == [
        "model.drop_path",
        "model.depth",
    ]
