import json

import pytest

from pipeline.cli.commands import app
from pipeline.config.models import MODEL_NAMES
from pipeline.config.recipes import RECIPE_NAMES, RECIPES, Evidence, Recipe, Variant


@pytest.fixture
def config(capsys):
    def command(*words):
        assert not app(["config", *words], standalone_mode=False)
        return capsys.readouterr().out

    return command


def test_each_recipe_has_a_line_for_each_model_and_choice_of_classes(config):
    of_recipes = config("recipes").split("\n\n")
    for name, text in zip(RECIPE_NAMES, of_recipes, strict=True):
        first, sets, *lines = text.splitlines()
        assert first == f"{name}: {RECIPES[name].purpose}"
        assert sets.startswith("sets ")
        rows = [line.split()[:2] for line in lines[1:]]
        assert rows == [[model, classes] for model in MODEL_NAMES for classes in ("four", "all")]


def test_a_line_has_what_is_set_and_the_evidence_or_that_there_is_none(config, monkeypatch):
    evidence = Evidence("94 % of the test images", (0, 1), "a laptop", "recipes-test all")
    variants = {"four": Variant({"train.epochs": 5, "model.dims": (8, 16)}, evidence), "all": Variant()}
    monkeypatch.setitem(RECIPES, "best", Recipe("for tests", {"small": variants}))
    *_, head, four, ten = config("recipes", "--recipe", "best").splitlines()
    assert head.split() == ["model", "classes", "sets", "measured"]
    assert four.split()[:4] == ["small", "four", "train.epochs=5", "model.dims=[8,16]"]
    assert four.endswith("  94 % of the test images; seeds 0, 1; a laptop; `recipes-test all`")
    assert ten.split() == ["small", "all", "-", "not", "yet"]
    [first, second] = json.loads(config("recipes", "--recipe", "best", "--json"))["recipes"]
    assert first["settings"] == {"train.epochs": 5, "model.dims": [8, 16]}
    assert first["evidence"]["seeds"] == [0, 1]
    assert second["evidence"] is None


def test_what_all_variants_set_is_said_once(config, monkeypatch):
    variants = {"four": Variant({"seed": 1, "train.epochs": 5}), "all": Variant({"train.epochs": 2, "seed": 1})}
    monkeypatch.setitem(RECIPES, "best", Recipe("for tests", {"small": variants}))
    _, sets, _, four, ten = config("recipes", "--recipe", "best").splitlines()
    assert sets == "sets seed=1"
    assert four.split()[2] == "train.epochs=5"
    assert ten.split()[2] == "train.epochs=2"


def test_the_list_can_be_of_one_recipe_and_one_model(config):
    rows = json.loads(config("recipes", "--recipe", "fast", "-m", "vanilla", "--json"))["recipes"]
    assert [(row["recipe"], row["model"], row["classes"]) for row in rows] == [
        ("fast", "vanilla", "four"),
        ("fast", "vanilla", "all"),
    ]


def test_the_resolved_settings_of_a_recipe_are_shown(config):
    assert config("show", "--recipe", "best").startswith("recipe: best\n")
    assert json.loads(config("show", "--json"))["recipe"] == "default"
