import pytest
from pydantic import ValidationError

from pipeline.config.group import Group, short
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError


class Ranked(Group):
    rank: int = 0
    ratio: float = 0.0


def test_a_group_refuses_unknown_keys_and_numbers_that_are_not_finite():
    assert Ranked.model_validate({"rank": 2}).rank == 2
    for content in ({"rang": 2}, {"ratio": float("inf")}, {"rank": True}):
        with pytest.raises(ValidationError):
            Ranked.model_validate(content)


@pytest.mark.parametrize(
    "setting",
    ["seed", "train.learning_rate", "train.ema_decay", "compute.threads", "data.folder", "train.schedule"],
)  # fmt: skip
def test_a_truth_value_is_neither_a_number_nor_a_text(setting):
    with pytest.raises(ConfigError, match=rf"config: {setting}: true is a truth value here"):
        resolve(sets=[f"{setting}=true"])


@pytest.mark.parametrize("value", ["1", "0", "'yes'", "y", "t", "1.0"])
def test_nothing_but_true_and_false_is_a_truth_value(value):
    with pytest.raises(ConfigError, match="write true or false"):
        resolve(sets=[f"train.augment.flip={value}"])


def test_a_truth_value_in_a_list_of_numbers_is_refused():
    with pytest.raises(ConfigError, match=r"model\.dims: \[true, 8\] is a truth value"):
        resolve(sets=["model.dims=[true, 8]"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("a", "'a'"),
        ("a" * 58, f"'{'a' * 58}'"),
        ("a" * 59, f"'{'a' * 56}..."),
        (10**5000, "a very long number"),
    ],
    ids=["none", "short", "longest", "too long", "number"],
)
def test_a_value_is_shown_in_sixty_characters_at_most(value, text):
    assert short(value) == text
    assert len(text) <= 60
