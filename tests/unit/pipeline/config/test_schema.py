import pickle
import types
from pathlib import Path
from typing import Union, get_args, get_origin

import pytest
from config_files import forget_default_recipe, message_of
from pydantic import BaseModel, ValidationError

from pipeline.config.keys import flatten
from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve, with_values
from pipeline.config.schema import CIFAR10_CLASSES, RunConfig
from pipeline.errors import ConfigError

REPOSITORY = Path(__file__).parents[4]


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
def test_at_least_two_different_classes_are_needed(classes):
    assert "data.classes" in message_of(f"data.classes={classes}")


def test_every_group_of_a_config_is_frozen():
    config = resolve()
    for group, field in ((config, "seed"), (config.train, "epochs"), (config.train.augment, "flip")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(group, field, 1)


def test_an_empty_folder_is_not_the_working_directory():
    assert "data.folder: it is empty" in message_of("data.folder=''")


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
        return found + ([] if (group.__doc__ or "").strip() else [group.__name__])

    assert undescribed(RunConfig) == []


def test_every_default_lies_within_its_own_limits():
    for model in MODEL_NAMES:
        config = resolve(model)
        assert RunConfig.model_validate(config.model_dump()) == config


def test_a_committed_config_resolves():
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        assert resolve(file=path).model.name in MODEL_NAMES


def test_the_defaults_stay_since_what_was_made_with_them_would_be_made_again(monkeypatch):
    forget_default_recipe(monkeypatch)
    settings = {key: value for key, value in flatten(resolve()).items() if not key.startswith("model.")}
    assert settings == {
        "recipe": "default",
        "seed": 0,
        "data.source": "auto",
        "data.folder": None,
        "data.classes": ["airplane", "automobile", "bird", "cat"],
        "data.fraction": 1.0,
        "data.validation_fraction": 0.1,
        "data.split_seed": 0,
        "train.epochs": 11,
        "train.batch_size": 128,
        "train.optimizer": "adamw",
        "train.learning_rate": 0.002,
        "train.muon_learning_rate": 0.004,
        "train.bias_rate_factor": 1.0,
        "train.adam_beta2": 0.999,
        "train.weight_decay": 0.05,
        "train.schedule": "one_cycle",
        "train.warmup_fraction": 0.25,
        "train.label_smoothing": 0.1,
        "train.clip_norm": 1.0,
        "train.ema_decay": None,
        "train.early_stopping_patience": None,
        "train.augment.translate_pixels": 4,
        "train.augment.padding": "zeros",
        "train.augment.flip": True,
        "train.augment.alternating_flip": False,
        "train.augment.cutout_pixels": 0,
        "train.augment.cutmix": 0.0,
        "evaluate.mirrored": False,
        "evaluate.calibration_bins": 15,
        "evaluate.mistakes": 24,
        "compute.device": "auto",
        "compute.precision": "auto",
        "compute.kernel": "auto",
        "compute.threads": None,
        "compute.micro_batch_size": None,
        "compute.max_memory_mb": None,
        "compute.recompute": False,
        "compute.checkpoint_every_s": 60.0,
        "compute.max_time_s": None,
        "registry.gate.confidence": 0.95,
        "registry.gate.equal_within_points": 0.5,
        "registry.gate.equal_must_be_cheaper": True,
        "registry.gate.least_accuracy": None,
        "registry.gate.class_drop_points": None,
        "registry.gate.largest_ece": None,
    }


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("seed", [0, 2**31 - 1], [-1, 2**31]),
        ("data.fraction", [1e-9, 1], [0, 1.001]),
        ("data.validation_fraction", [1e-9, 0.999], [0, 1]),
        ("data.split_seed", [0, 2**31 - 1], [-1, 2**31]),
        ("train.epochs", [1, 2**31 - 1], [0, 2**31]),
        ("train.batch_size", [1, 2**31 - 1], [0, 2**31]),
        ("train.learning_rate", [1e-9, 10], [0, 10.001]),
        ("train.muon_learning_rate", [1e-9, 10], [0, 10.001]),
        ("train.bias_rate_factor", [1e-9, 1000], [0, 1000.1]),
        ("train.adam_beta2", [1e-9, 0.9999], [0, 1]),
        ("train.weight_decay", [0, 10], [-0.001, 10.001]),
        ("train.warmup_fraction", [0, 0.999], [-0.001, 1]),
        ("train.label_smoothing", [0, 0.999], [-0.001, 1]),
        ("train.clip_norm", [None, 1e-9], [0]),
        ("train.ema_decay", [None, 1e-9, 0.999], [0, 1]),
        ("train.early_stopping_patience", [None, 1], [0]),
        ("train.augment.translate_pixels", [0, 16], [-1, 17]),
        ("train.augment.cutout_pixels", [0, 32], [-1, 33]),
        ("train.augment.cutmix", [0, 1], [-0.001, 1.001]),
        ("evaluate.calibration_bins", [2, 100], [1, 101]),
        ("evaluate.mistakes", [1, 100], [0, 101]),
        ("compute.threads", [None, 1], [0]),
        ("compute.micro_batch_size", [None, 1], [0]),
        ("compute.max_memory_mb", [None, 0.1], [0]),
        ("compute.checkpoint_every_s", [0.1], [0]),
        ("compute.max_time_s", [None, 0.1], [0]),
    ],
)
def test_a_number_has_limits(key, accepted, refused):
    config = resolve("vanilla")
    for value in accepted:
        assert flatten(with_values(config, {key: value}))[key] == value
    for value in refused:
        with pytest.raises(ConfigError, match=f"config: {key} = "):
            with_values(config, {key: value})


def test_only_a_model_with_blocks_can_recompute_them():
    assert resolve("small", sets=["compute.recompute=true"]).compute.recompute
    assert "compute.recompute is for small and medium: vanilla has no blocks" in message_of(
        "compute.recompute=true", model="vanilla"
    )


def test_only_the_synthetic_source_is_another_data_set():
    for source in ("auto", "folder", "torchvision", "npm"):
        assert resolve(sets=[f"data.source={source}"]).data.dataset == "cifar10"
    assert resolve(sets=["data.source=synthetic"]).data.dataset == "synthetic"


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_config_can_be_sent_to_another_process(model):
    config = resolve(model)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes
