import types
from pathlib import Path
from typing import Union, get_args, get_origin

import pytest
from config_files import message_of
from pydantic import BaseModel, ValidationError

from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES, RunConfig

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
def test_two_different_classes_are_the_least(classes):
    assert "data.classes" in message_of(f"data.classes={classes}")


def test_a_config_is_frozen_through_and_through():
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
        return found + ([] if group.__doc__ else [group.__name__])

    assert undescribed(RunConfig) == []


def test_every_default_lies_within_its_own_limits():
    for model in MODEL_NAMES:
        config = resolve(model)
        assert RunConfig.model_validate(config.model_dump()) == config


def test_a_committed_recipe_resolves():
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        assert resolve(file=path).model.name in MODEL_NAMES
