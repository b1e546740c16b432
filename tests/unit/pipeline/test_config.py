import types
from pathlib import Path
from typing import Union, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pipeline.config.keys import flatten, known_keys, to_yaml
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES, MODEL_NAMES, RunConfig
from pipeline.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def file_of(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message_of(*sets: str, **rest: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(sets=sets, **rest)
    return str(caught.value)


def test_the_defaults_are_a_small_sequencer_on_four_classes():
    config = resolve()
    assert (config.model.name, config.model.dims, config.model.depths) == ("small", (192, 384), (4, 3))
    assert config.data.class_names == CIFAR10_CLASSES[:4]
    assert config.seed == 0


def test_each_model_has_its_recipe():
    assert resolve("medium").model.dims == (192, 384, 384)
    assert resolve("medium").model.depths == (4, 3, 3)
    assert resolve("vanilla").model.hidden == 192


def test_a_flag_beats_a_set_beats_the_file_beats_the_recipe_beats_the_default(tmp_path):
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
    assert config.model.dims == (16, 16, 16)  # file over recipe
    assert config.model.depths == (4, 3, 3)  # recipe
    assert config.train.weight_decay == RunConfig.model_validate({"model": {"name": "vanilla"}}).train.weight_decay


def test_the_last_of_two_sets_of_one_key_counts():
    assert resolve(sets=["seed=1", "seed=2"]).seed == 2


def test_a_model_flag_beats_the_files_model_and_takes_its_own_recipe(tmp_path):
    config = resolve("medium", file=file_of(tmp_path, "model: vanilla\n"))
    assert (config.model.name, config.model.dims) == ("medium", (192, 384, 384))


def test_a_bare_model_name_keeps_the_settings_of_other_layers(tmp_path):
    config = resolve(file=file_of(tmp_path, "model: vanilla\n"), sets=["model.hidden=8"])
    assert (config.model.name, config.model.hidden) == ("vanilla", 8)


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("train.epoch=3", "train.epochs"),
        ("trian=3", "train"),
        ("learning_rate=0.1", "train.learning_rate"),
        ("train.augment.flips=true", "train.augment.flip"),
        ("model.depth=[1,1]", "model.depths"),
        ("compute.micro_batch=4", "compute.micro_batch_size"),
    ],
)
def test_an_unknown_key_names_the_nearest(setting, known):
    message = message_of(setting)
    assert message.startswith(f"config: unknown key {setting.partition('=')[0]}; did you mean {known}")
    assert "\n" not in message


def test_a_dotted_key_in_a_file_is_told_how_to_be_written(tmp_path):
    message = message_of(file=file_of(tmp_path, "train.augment.flip: true\n"))
    assert "in a file it is written `train: {augment: {flip: ...}}`" in message
    assert f"({tmp_path}/run.yaml, line 1)" in message


def test_a_key_of_another_model_is_unknown_here():
    assert "unknown key model.hidden" in message_of("model.hidden=8", model="small")
    assert "unknown key model.dims" in message_of("model.dims=[8,8]", model="vanilla")


def test_an_unknown_model_or_class_names_the_nearest():
    assert "did you mean medium?" in message_of(model="meduim")
    assert "did you mean airplane?" in message_of("data.classes=[airplan, cat]")


@pytest.mark.parametrize(
    ("setting", "key", "given"),
    [
        ("train.epochs=many", "train.epochs", "'many'"),
        ("train.epochs=0", "train.epochs", "0"),
        ("train.epochs=null", "train.epochs", "null"),
        ("train.epochs=1.5", "train.epochs", "1.5"),
        ("train.learning_rate=-1", "train.learning_rate", "-1"),
        ("train.learning_rate=.nan", "train.learning_rate", "nan"),
        ("train.weight_decay=.inf", "train.weight_decay", "inf"),
        ("train.schedule=linear", "train.schedule", "'linear'"),
        ("data.fraction=1.01", "data.fraction", "1.01"),
        ("data=3", "data", "3"),
        ("model.dims=[190, 384]", "model.dims.0", "190"),
        ("train.ema_decay=1", "train.ema_decay", "1"),
        ("seed=-1", "seed", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_key_and_the_value(setting, key, given):
    message = message_of(setting)
    assert message.startswith(f"config: {key} = {given}: ")
    assert "\n" not in message
    assert "model.small" not in message


def test_only_the_first_problem_is_told_and_the_others_are_counted():
    message = message_of("train.epochs=0", "train.batch_size=0", "seed=-1")
    assert message.endswith("(and 2 more)")


def test_a_model_needs_as_many_numbers_as_it_has_levels():
    assert message_of("model.dims=[8,8,8]") == "config: model.dims needs 2 numbers for small, got 3"


def test_classes_in_any_order_are_the_same_config():
    one = resolve(sets=["data.classes=[cat, airplane, frog]"])
    other = resolve(sets=["data.classes=frog,cat, airplane"])
    assert one == other
    assert one.data.class_names == ("airplane", "cat", "frog")


def test_all_ten_classes_are_all():
    listed = resolve(sets=[f"data.classes={','.join(reversed(CIFAR10_CLASSES))}"])
    assert listed == resolve(sets=["data.classes=all"])
    assert listed.data.class_names == CIFAR10_CLASSES


@pytest.mark.parametrize("classes", ["[cat, cat]", "[cat]", "[]", "cat", "''"])
def test_two_different_classes_are_the_least(classes):
    assert "data.classes" in message_of(f"data.classes={classes}")


def test_a_config_is_frozen_through_and_through():
    config = resolve()
    for group, field in ((config, "seed"), (config.train, "epochs"), (config.train.augment, "flip")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(group, field, 1)


def groups_of(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [group for member in get_args(annotation) for group in groups_of(member)]
    return []


def test_every_field_that_can_be_set_is_described():
    def undescribed(group: type[BaseModel]) -> list[str]:
        found = []
        for name, field in group.model_fields.items():
            inner = groups_of(field.annotation)
            found += [text for one in inner for text in undescribed(one)]
            if not inner and not (field.description or "").strip():
                found.append(f"{group.__name__}.{name}")
        return found + ([] if group.__doc__ else [group.__name__])

    assert undescribed(RunConfig) == []


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_known_keys_are_those_of_the_flattened_config(model):
    assert known_keys(model) == list(flatten(resolve(model)))


def test_every_default_lies_within_its_own_limits():
    for model in MODEL_NAMES:
        config = resolve(model)
        assert RunConfig.model_validate(config.model_dump()) == config


def test_a_committed_recipe_resolves():
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        assert resolve(file=path).model.name in MODEL_NAMES


settable = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "data.classes": st.one_of(
            st.just("all"), st.lists(st.sampled_from(CIFAR10_CLASSES), min_size=2, unique=True)
        ),
        "data.fraction": st.floats(0, 1, exclude_min=True),
        "data.folder": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        "train.learning_rate": st.floats(0, 10, exclude_min=True),
        "train.ema_decay": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        "train.augment.flip": st.booleans(),
        "model.dropout": st.floats(0, 1, exclude_max=True),
        "compute.max_time_s": st.none() | st.floats(min_value=1e-9, allow_infinity=False),
    },
)


@in_one_folder
@given(st.sampled_from(MODEL_NAMES), settable)
def test_a_resolved_config_written_and_read_again_is_the_same(tmp_path, model, flags):
    config = resolve(model, flags=flags)
    again = resolve(file=file_of(tmp_path, to_yaml(config)))
    assert again == config
    assert to_yaml(again) == to_yaml(config)


@pytest.mark.parametrize("name", ["\x85", "a\u2028b", "tab\tand\nline"])
def test_a_folder_whose_name_breaks_lines_is_written_and_read_again(tmp_path, name):
    config = resolve("small", flags={"data.folder": name})
    assert resolve(file=file_of(tmp_path, to_yaml(config))) == config


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


def test_an_empty_folder_is_not_the_working_directory():
    assert "data.folder: it is empty" in message_of("data.folder=''")


def test_the_home_folder_may_begin_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file_of(tmp_path, "data: {folder: images}\n")
    assert resolve(file=Path("~/run.yaml")).data.folder == tmp_path / "images"
