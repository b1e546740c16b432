import pytest
from config_files import file_of, message_of

from pipeline.config.resolution import resolve, with_values
from pipeline.errors import ConfigError


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


def test_a_dotted_key_in_a_file_gets_the_nested_form(tmp_path):
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
        ("train.schedule=straight", "train.schedule", "'straight'"),
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


def test_only_the_first_problem_is_shown_and_the_others_are_counted():
    message = message_of("train.epochs=0", "train.batch_size=0", "seed=-1")
    assert message.endswith("(and 2 more)")


def test_a_wrong_value_is_followed_by_what_it_should_be():
    assert message_of("train.epochs=0") == ("config: train.epochs = 0: input should be greater than or equal to 1")


def test_a_wrong_value_of_a_file_is_followed_by_its_line(tmp_path):
    file = file_of(tmp_path, "seed: 1\ntrain:\n  batch_size: 8\n  epochs: 0\n")
    assert message_of(file=file).endswith(f"equal to 1 ({file}, line 4)")
    assert message_of("train.batch_size=9", "train.augment.flip=true", file=file).endswith(f"({file}, line 4)")


@pytest.mark.parametrize("setting", ["train.epochs=-1", "train=3"])
def test_a_value_that_was_set_after_the_file_is_not_looked_for_there(tmp_path, setting):
    assert "line" not in message_of(setting, file=file_of(tmp_path, "train: {epochs: 0}\n"))


def test_a_list_of_the_wrong_length_is_on_the_line_of_its_group(tmp_path):
    file = file_of(tmp_path, "seed: 1\nmodel: {name: small, dims: [8, 8, 8]}\n")
    assert message_of(file=file).endswith(f"({file}, line 2)")


def test_a_group_that_is_given_as_a_value_is_named_by_its_own_key():
    with pytest.raises(ConfigError, match=r"^config: model = 3: input should be a group of settings"):
        with_values(resolve("small"), {"model": 3})
