from itertools import product

import pytest
from config_files import file_of, forget_default_recipe, message_of

from pipeline.config import recipes
from pipeline.config.keys import known_keys, to_yaml
from pipeline.config.models import MODEL_NAMES
from pipeline.config.recipes import RECIPE_NAMES, RECIPES, Evidence, Recipe, Variant
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.errors import ConfigError
from pipeline.stages import evaluate, train

OF_FOUR = {"model.hidden": 8, "train.epochs": 5, "train.augment.flip": False}


@pytest.fixture
def toy(monkeypatch):
    """A recipe whose settings a test knows, and a default one that sets nothing."""
    forget_default_recipe(monkeypatch)
    variants = {"four": Variant(OF_FOUR), "all": Variant({"train.epochs": 50})}
    monkeypatch.setitem(RECIPES, "best", Recipe("for tests", {"vanilla": variants}))


def with_toy(*sets: str, **rest):
    return resolve("vanilla", sets=["recipe=best", *sets], **rest)


@pytest.mark.parametrize(("name", "model"), [*product(RECIPE_NAMES, MODEL_NAMES)])
def test_every_recipe_has_valid_settings_for_every_model_on_four_classes_and_on_all(name, model):
    assert set(RECIPES[name].variants[model]) == {"four", "all"}
    for classes, choice in ((CIFAR10_CLASSES[:4], "four"), ("all", "all")):
        config = resolve(model, flags={"recipe": name, "data.classes": classes})
        assert config.recipe == name
        settings = RECIPES[name].variants[model][choice].settings
        assert set(settings) <= set(known_keys(model))
        assert {key.partition(".")[0] for key in settings} <= {"model", "train", "evaluate"}, "nothing of the machine"


def test_the_default_recipe_is_what_counts_where_none_is_named():
    for model in MODEL_NAMES:
        assert resolve(model) == resolve(model, flags={"recipe": "default"})


def test_a_recipe_beats_the_models_own_values_and_any_other_layer_beats_it(toy, tmp_path):
    config = with_toy()
    assert (config.model.hidden, config.train.epochs, config.train.augment.flip) == (8, 5, False)
    assert config.train.augment.translate_pixels == 4, "what it does not set stays"
    file = file_of(tmp_path, "recipe: best\nmodel: {hidden: 16}\ntrain: {epochs: 6}\n")
    config = resolve("vanilla", file, ["train.epochs=7"], {"train.augment.flip": True})
    assert (config.recipe, config.model.hidden, config.train.epochs) == ("best", 16, 7)
    assert config.train.augment.flip


def test_a_recipe_beats_what_a_model_has_of_its_own(monkeypatch):
    variants = {"four": Variant({"model.dims": (8, 16)}), "all": Variant()}
    monkeypatch.setitem(RECIPES, "best", Recipe("for tests", {"small": variants}))
    config = resolve("small", flags={"recipe": "best"})
    assert (config.model.dims, config.model.depths) == ((8, 16), (4, 3))


def test_a_flag_names_the_recipe_before_a_set_and_that_before_the_file(tmp_path):
    file = file_of(tmp_path, "recipe: fast\n")
    assert resolve(file=file).recipe == "fast"
    assert resolve(file=file, sets=["recipe=best"]).recipe == "best"
    assert resolve(file=file, sets=["recipe=best"], flags={"recipe": "default"}).recipe == "default"


@pytest.mark.parametrize("classes", ["all", f"[{','.join(reversed(CIFAR10_CLASSES))}]", ",".join(CIFAR10_CLASSES)])
def test_all_ten_classes_have_settings_of_their_own_however_they_are_written(toy, classes):
    assert with_toy(f"data.classes={classes}").train.epochs == 50


@pytest.mark.parametrize("classes", ["[cat,dog]", f"[{','.join(CIFAR10_CLASSES[:9])}]"])
def test_any_other_classes_take_the_settings_of_four(toy, classes):
    assert with_toy(f"data.classes={classes}").train.epochs == 5


def test_an_invalid_choice_of_classes_is_what_the_message_is_about(toy):
    assert "unknown class 'cta'" in message_of("recipe=best", "data.classes=[cta,dog]")
    assert "data = 3" in message_of("recipe=best", "data=3")


def test_an_unknown_recipe_names_the_nearest_and_where_it_was_written(tmp_path):
    assert message_of("recipe=bset") == "config: recipe: unknown recipe 'bset'; did you mean best?"
    file = file_of(tmp_path, "seed: 1\nrecipe: fats\n")
    assert message_of(file=file).endswith(f"did you mean fast? ({file}, line 2)")
    for text in ("recipe=[best]", "recipe=null", "recipe=3", "recipe={best: 1}"):
        assert len(message_of(text).splitlines()) == 1


@pytest.mark.parametrize(("name", "model"), [*product(RECIPE_NAMES, MODEL_NAMES)])
def test_a_stored_config_fed_back_gives_the_same_config(tmp_path, name, model):
    config = resolve(model, sets=["train.epochs=2"], flags={"recipe": name})
    assert resolve(file=file_of(tmp_path, to_yaml(config))) == config
    assert resolve(model, file_of(tmp_path, to_yaml(config)), flags={"recipe": name}) == config


def test_a_stored_config_is_not_taken_for_another_recipe(toy, tmp_path):
    for stored, asked in (("best", "default"), ("default", "best")):
        file = file_of(tmp_path, to_yaml(resolve("vanilla", flags={"recipe": stored})))
        with pytest.raises(ConfigError, match=rf"run\.yaml sets model\.hidden, .*; to run recipe {asked}, take that"):
            resolve("vanilla", file, flags={"recipe": asked})
    without = file_of(tmp_path, to_yaml(resolve("vanilla")).replace("recipe: default\n", ""))  # before there were any
    with pytest.raises(ConfigError, match="to run recipe best"):
        resolve("vanilla", without, flags={"recipe": "best"})
    with pytest.raises(ConfigError, match="unknown recipe"):
        resolve("vanilla", file, flags={"recipe": "bset"})


def test_what_a_file_changed_of_one_recipe_is_not_taken_into_another(toy, tmp_path):
    file = file_of(tmp_path, "recipe: fast\ntrain: {epochs: 6}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml sets train\.epochs, and a file wins"):
        with_toy(file=file)
    file = file_of(tmp_path, "recipe: fast\ntrain: {batch_size: 6}\n")
    assert with_toy(file=file).train.batch_size == 6, "neither of the two sets it"


def test_a_file_may_change_some_of_what_a_recipe_sets(toy, tmp_path):
    config = with_toy(file=file_of(tmp_path, "train: {epochs: 6}\n"))
    assert (config.model.hidden, config.train.epochs) == (8, 6)


def test_no_fingerprint_has_the_recipe_in_it(toy):
    of_recipe = with_toy()
    by_hand = resolve("vanilla", flags=OF_FOUR)
    assert train.reads(of_recipe) == train.reads(by_hand)
    assert evaluate.STAGE.reads(of_recipe, None) == evaluate.STAGE.reads(by_hand, None)


def test_the_evidence_is_one_line_with_figure_seeds_machine_and_command():
    evidence = Evidence("94.1 % of the test images (93.8 to 94.4)", (0, 1), "EPYC, bf16", "seqpipe run all")
    assert evidence.in_words() == (
        "94.1 % of the test images (93.8 to 94.4); seeds 0, 1; EPYC, bf16; `seqpipe run all`"
    )
    assert "; seed 3; " in Evidence("x", (3,), "m", "c").in_words()
    assert recipes.DEFAULT in RECIPES
