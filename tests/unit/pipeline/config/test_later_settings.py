import pytest
from config_files import forget_default_recipe

from pipeline.config.group import Group
from pipeline.config.keys import known_keys
from pipeline.config.later_settings import LATER, counted
from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve


def test_every_later_setting_is_one():
    assert {key for model in MODEL_NAMES for key in known_keys(model)} >= LATER


def test_a_later_setting_counts_from_the_moment_that_it_is_not_at_its_default():
    plain, changed = (resolve(sets=[f"model.forget_bias={value}"]).model for value in (0, 1))
    assert "forget_bias" not in counted(plain, "model")
    assert counted(changed, "model") == counted(plain, "model") | {"forget_bias": 1.0}


def test_every_other_setting_counts_at_its_default_too(monkeypatch):
    forget_default_recipe(monkeypatch)
    own = {"name": "vanilla", "sequence": "rows", "hidden": 192, "layers": 2, "dropout": 0.1, "init": "he"}
    assert counted(resolve("vanilla").model, "model") == own


class Inner(Group):
    old: int = 1
    new: tuple[int, ...] = (1, 2)


class Outer(Group):
    inner: Inner = Inner()


@pytest.mark.parametrize(("new", "expected"), [((1, 2), {"old": 1}), ((1, 3), {"old": 1, "new": [1, 3]})])
def test_groups_within_a_group_are_looked_into(monkeypatch, new, expected):
    monkeypatch.setattr("pipeline.config.later_settings.LATER", frozenset({"outer.inner.new"}))
    assert counted(Outer(inner=Inner(new=new)), "outer") == {"inner": expected}
