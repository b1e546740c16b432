import pytest
from config_files import file_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.keys import flatten, known_keys, to_yaml
from pipeline.config.models import MODEL_NAMES
from pipeline.config.recipes import RECIPE_NAMES
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_known_keys_are_those_of_the_flattened_config(model):
    assert known_keys(model) == list(flatten(resolve(model)))


settable = st.fixed_dictionaries(
    {},
    optional={
        "recipe": st.sampled_from(RECIPE_NAMES),
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
