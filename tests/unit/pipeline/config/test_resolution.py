from pathlib import Path

import pytest
import yaml
from config_files import file_of, message_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.keys import to_yaml
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES, RunConfig
from pipeline.errors import ConfigError

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_the_defaults_are_a_small_sequencer_on_four_classes():
    config = resolve()
    assert (config.model.name, config.model.dims, config.model.depths) == ("small", (192, 384), (4, 3))
    assert config.data.class_names == CIFAR10_CLASSES[:4]
    assert config.seed == 0


def test_a_flag_beats_a_set_beats_the_file_beats_the_models_own_values_beat_the_default(tmp_path):
    file = file_of(
        tmp_path,
        "seed: 20\n"
        "model: {name: medium, dims: [16, 16, 16]}\n"
        "train: {epochs: 2, batch_size: 20, learning_rate: 0.2}\n",
    )
    config = resolve(
        file=file, sets=["train.epochs=3", "train.batch_size=30"], flags={"train.epochs": 4, "seed": None}
    )
    assert config.train.epochs == 4  # flag
    assert config.train.batch_size == 30  # --set
    assert config.train.learning_rate == 0.2  # file
    assert config.seed == 20  # the file's, since the flag was not given
    assert config.model.dims == (16, 16, 16)  # file over the model's own
    assert config.model.depths == (4, 3, 3)  # the model's own
    assert config.train.weight_decay == RunConfig.model_validate({"model": {"name": "vanilla"}}).train.weight_decay


def test_the_last_of_two_sets_of_one_key_counts():
    assert resolve(sets=["seed=1", "seed=2"]).seed == 2


def test_a_model_flag_beats_the_files_model_and_takes_its_own_values(tmp_path):
    config = resolve("medium", file=file_of(tmp_path, "model: vanilla\n"))
    assert (config.model.name, config.model.dims) == ("medium", (192, 384, 384))


def test_a_bare_model_name_keeps_the_settings_of_other_layers(tmp_path):
    config = resolve(file=file_of(tmp_path, "model: vanilla\n"), sets=["model.hidden=8"])
    assert (config.model.name, config.model.hidden) == ("vanilla", 8)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()


keys = st.sampled_from(["data", "model", "train", "augment", "name", "classes", "dims", "epochs", "seed"]) | st.text(
    max_size=6
)


junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | scalars, inner))


def refused_in_one_line_or_taken(file: Path) -> None:
    message = ""
    try:
        resolve(file=file)
    except ConfigError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(message) < 1000


@in_one_folder
@given(junk)
def test_any_yaml_is_taken_or_refused_in_one_line(tmp_path, content):
    refused_in_one_line_or_taken(file_of(tmp_path, yaml.safe_dump(content, allow_unicode=True).encode("utf-8")))


@in_one_folder
@given(st.binary(max_size=40) | st.text("[]{}:,&*!|>-? \n'\"a1.#%@`~\t", max_size=30).map(str.encode))
def test_any_bytes_are_taken_or_refused_in_one_line(tmp_path, content):
    refused_in_one_line_or_taken(file_of(tmp_path, content))


@pytest.mark.parametrize(
    "text",
    [
        "train: &t {augment: *t}\n",  # a mapping that holds itself
        "data: {classes: &c [cat, *c]}\n",
        "[" * 5000,
        f"seed: 0x{'f' * 5000}\n",  # an integer too long to print
        'train: {"epochs\\nmore": 1}\n',
        'model: {name: "small\\nor so"}\n',
        "train: {1: 2, [1]: 2}\n",
        "seed: 2001-99-99\n",
        "- seed\n",
        "3: seed\n",
        "model: [small]\n",
        "model: {name: {}}\n",
        "model: {name: [small]}\n",
    ],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, text):
    message = message_of(file=file_of(tmp_path, text))
    assert len(message.splitlines()) == 1


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    assert "no such config file" in message_of(file=tmp_path / "missing.yaml")
    assert "cannot be read" in message_of(file=tmp_path)
    assert "save the file as UTF-8" in message_of(file=file_of(tmp_path, "seed: 1 # é".encode("latin-1")))


@pytest.mark.parametrize(
    "text", ["train.epochs", "=3", " =3", "train.epochs=[", "train.epochs=\t- {", ".=1", "a..b=1"]
)
def test_a_malformed_set_says_how_it_is_written(text):
    assert len(message_of(text).splitlines()) == 1


def test_an_empty_file_changes_nothing(tmp_path):
    assert resolve(file=file_of(tmp_path, "# nothing\n")) == resolve()


def test_a_file_of_one_model_is_not_taken_for_another(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(to_yaml(resolve("small")))
    with pytest.raises(ConfigError, match=r"small\.yaml holds settings of small; take out its `model:` part"):
        resolve("medium", file)
    file.write_text("model: small\ntrain: {epochs: 3}\n")
    assert resolve("medium", file).train.epochs == 3


def test_a_relative_folder_in_a_file_starts_there_and_elsewhere_at_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    file = file_of(tmp_path, "data: {folder: images/cifar}\n")
    for name in (file, Path("../run.yaml")):
        assert resolve(file=name).data.folder.resolve() == tmp_path / "images/cifar"
    assert resolve(file=file, sets=["data.folder=images"]).data.folder == tmp_path / "work/images"
    assert resolve(flags={"data.folder": Path("images")}).data.folder == tmp_path / "work/images"


def test_a_folder_of_a_stored_config_is_the_same_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolve(sets=["data.folder=images"])
    (tmp_path / "stored").mkdir()
    assert resolve(file=file_of(tmp_path / "stored", to_yaml(config))) == config


@pytest.mark.parametrize("folder", ["/data/cifar", "~/cifar", "~someone/cifar"])
def test_a_full_path_or_a_home_folder_stays_as_it_is_written(tmp_path, folder):
    assert resolve(file=file_of(tmp_path, f"data: {{folder: {folder}}}\n")).data.folder == Path(folder)


def test_the_home_folder_may_begin_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file_of(tmp_path, "data: {folder: images}\n")
    assert resolve(file=Path("~/run.yaml")).data.folder == tmp_path / "images"


@pytest.mark.parametrize("text", ["train.clip_norm=", "train.clip_norm= "])
def test_a_set_without_a_value_is_not_taken_for_null(text):
    with pytest.raises(ConfigError, match="the value is missing; write null"):
        resolve(sets=[text])
