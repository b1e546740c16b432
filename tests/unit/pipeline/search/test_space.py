from pathlib import Path

import pytest
from few_images import config_with

from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.search.space import check, configuration, default_of, default_space, in_words, space_for, value_in_words
from tuning.space import Space


@pytest.fixture
def written(tmp_path):
    def write(text: str):
        (tmp_path / "space.yaml").write_text(text)
        return tmp_path / "space.yaml"

    return write


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_each_default_space_holds_what_the_config_takes_and_its_default(model):
    config = resolve(model)
    space = space_for(config)
    assert set(space) == set(default_space(model))
    assert {key.split(".")[-1] for key in space} >= {
        "learning_rate", "weight_decay", "adam_beta2", "dropout", "label_smoothing", "batch_size", "translate_pixels",
    }  # fmt: skip
    assert space.outside(default_of(space, config)) == []
    assert configuration(config, default_of(space, config)) == config


def test_a_default_space_leaves_out_what_does_not_fit_the_config():
    assert space_for(resolve("small"))["model.stem"].options == ("patch", "conv", "deep")
    config = resolve("small", sets=["model.stem=deep", "model.whitened=true"])
    space = space_for(config)
    assert space["model.stem"].options == ("deep",)
    assert {key: each for key, each in space.items() if key != "model.stem"} == {
        key: each for key, each in default_space("small").items() if key != "model.stem"
    }


def test_a_written_space_is_taken_as_it_is_or_refused(written):
    config = resolve("small", sets=["model.stem=deep", "model.whitened=true"])
    with pytest.raises(ConfigError, match="whitened is True, but stem conv has no such convolution"):
        space_for(config, written("model.stem: {choice: [deep, conv]}"))


def test_a_configuration_is_the_config_with_the_proposed_values():
    config = resolve("small")
    values = {"train.learning_rate": 0.004, "model.dims": [64, 128], "train.augment.cutout_pixels": 8}
    made = configuration(config, values)
    assert (made.train.learning_rate, made.model.dims, made.train.augment.cutout_pixels) == (0.004, (64, 128), 8)
    assert made.train.augment.flip == config.train.augment.flip
    assert default_of(Space.parse({key: {"choice": [value]} for key, value in values.items()}), made) == values


def test_a_committed_space_is_around_its_models_default():
    for path in (Path(__file__).parents[4] / "configs" / "spaces").glob("*.yaml"):
        config = resolve(path.name.partition("-")[0])
        space = space_for(config, path)
        assert space.outside(default_of(space, config)) == []


def test_a_file_replaces_the_default_space(written):
    space = space_for(resolve("small"), written("train.learning_rate: {log_uniform: [1e-4, 1e-2]}"))
    assert space.to_json() == {"train.learning_rate": {"log_uniform": [1e-4, 1e-2]}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the search space is empty"),
        ("recipe: {choice: [fast, best]}", "recipe cannot be searched: it says what a config began with"),
        ("train.lerning_rate: {uniform: [0.001, 0.1]}", "did you mean train.learning_rate?"),
        ("learning_rate: {uniform: [0.001, 0.1]}", "did you mean train.learning_rate?"),
        ("model.hidden: {choice: [8]}", "unknown key model.hidden"),
        ("train.learning_rate: {uniform: [0.1, 0.001]}", "train.learning_rate: the low bound must be below"),
        ("train.learning_rate: {uniform: [0.1, 11]}", "train.learning_rate = 11.0: "),
        ("train.learning_rate: {uniform: [-1, 1]}", "train.learning_rate = -1.0: "),
        ("train.learning_rate: 0.1", "train.learning_rate: write one kind"),
        ("train.learning_rate: {normal: [0, 1]}", "unknown kind 'normal'"),
        ("train.batch_size: {uniform: [16, 64]}", "train.batch_size = "),
        ("train.batch_size: {choice: []}", "at least one option"),
        ("train.batch_size: {integer: [0, 64]}", "train.batch_size = 0: "),
        ("model.dims: {choice: [[64, 128], [64]]}", "model.dims needs 2 numbers for small, got 1"),
        ("model.dims: {choice: [[64, 130]]}", "model.dims"),
        ("train.schedule: {choice: [cosine, straight]}", "train.schedule = 'straight': "),
        ("train.augment: {choice: [{flip: true}]}", "train.augment is a group of settings"),
        ("data.fraction: {uniform: [0.1, 1]}", "data.fraction cannot be searched: it says which data"),
        ("compute.threads: {choice: [1, 2]}", "compute.threads cannot be searched"),
        ("model.name: {choice: [small, medium]}", "model.name cannot be searched: one search is of one model"),
        ("train.epochs: {integer: [1, 9]}", "train.epochs cannot be searched"),
        ("seed: {integer: [0, 9]}", "seed cannot be searched"),
        ("[1, 2]", "must be a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused_with_the_files_name(written, text, says):
    file = written(text)
    with pytest.raises(ConfigError) as caught:
        space_for(resolve("small"), file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        space_for(resolve("small"), tmp_path / "none.yaml")


def test_every_value_of_a_long_range_is_bounded_and_a_large_space_is_checked_value_by_value():
    config = config_with()
    check(Space.parse({"train.batch_size": {"integer": [1, 2**30]}}), config)
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        check(Space.parse({"train.batch_size": {"integer": [1, 2**31]}}), config)
    many = {
        f"train.{key}": {"choice": [value / 100 for value in range(30)]}
        for key in ("label_smoothing", "warmup_fraction")
    }
    check(Space.parse(many), config)
    with pytest.raises(ConfigError, match=r"model\.dropout = 1"):
        check(Space.parse({**many, "model.dropout": {"choice": [0.5, 1.0]}}), config)


def test_parameters_and_values_read_well():
    space = Space.parse(
        {"a": {"log_uniform": [5e-4, 8e-3]}, "b": {"integer": [0, 6, 2]}, "c": {"choice": [[128, 256], True, None]}}
    )
    assert [in_words(each) for each in space.values()] == [
        "0.0005 to 0.008, each factor as likely", "0 to 6 in steps of 2", "[128,256] | true | null",
    ]  # fmt: skip
    assert value_in_words(0.0020123) == "0.00201"


def test_values_that_do_not_fit_each_other_are_found_before_anything_starts(monkeypatch):
    def refuse_together(config, values):
        if values.get("model.layers") == 2 and values.get("model.hidden") == 32:
            raise ConfigError("no such pair")
        return config

    monkeypatch.setattr("pipeline.search.space.with_values", refuse_together)
    space = Space.parse({"model.layers": {"integer": [1, 2]}, "model.hidden": {"choice": [16, 32]}})
    with pytest.raises(ConfigError, match="no such pair"):
        check(space, config_with())
