import pytest

from pipeline.config.suggestions import nearest

KEYS = ("train.epochs", "train.batch_size", "data.classes", "seed")


@pytest.mark.parametrize(
    ("name", "known", "end"),
    [
        ("train.epoch", KEYS, "; did you mean train.epochs?"),
        ("epochs", KEYS, "; did you mean train.epochs?"),  # the right name without its group
        ("model.epochs", KEYS, "; did you mean train.epochs?"),  # in the wrong group
        ("meduim", ("small", "medium"), "; did you mean medium?"),
        ("resnet", ("small", "medium"), "; known: small, medium"),
        ("qqq", tuple(f"key{n}" for n in range(12)), f"; known: {', '.join(f'key{n}' for n in range(12))}"),
        ("qqq", tuple(f"key{n}" for n in range(13)), ""),  # too many to list
    ],
)
def test_the_nearest_name_is_suggested_else_a_short_list(name, known, end):
    assert nearest(name, known) == end
