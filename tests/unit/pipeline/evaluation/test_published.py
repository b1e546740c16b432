import dataclasses

import pytest

from pipeline.evaluation.published import ModelResult, comparison_rows

SMALL = ModelResult(
    model="small",
    accuracy=0.8511,
    accuracy_low=0.8397,
    accuracy_high=0.8618,
    loss=0.41,
    images=4000,
    dataset="cifar10",
    class_names=("airplane", "automobile", "bird", "cat"),
    fraction=1.0,
)


@pytest.mark.parametrize(
    ("model", "accuracy", "loss"),
    [("small", 0.8411, 0.4246), ("medium", 0.8485, 0.4407), ("vanilla", 0.6777, 0.9368)],
)
def test_each_model_is_compared_with_its_published_result(model: str, accuracy: float, loss: float) -> None:
    (row,) = comparison_rows([dataclasses.replace(SMALL, model=model)])
    assert (row.published_accuracy, row.published_loss) == (accuracy, loss)
    assert row.difference_points == pytest.approx(100 * (0.8511 - accuracy))
    assert (row.like_for_like, row.reason) == (True, None)


def test_the_difference_is_in_points_and_negative_where_ours_is_worse() -> None:
    (row,) = comparison_rows([dataclasses.replace(SMALL, accuracy=0.8311)])
    assert row.difference_points == pytest.approx(-1.0)


def test_our_own_results_are_copied_in_the_order_given() -> None:
    rows = comparison_rows([dataclasses.replace(SMALL, model="vanilla"), SMALL])
    assert [row.model for row in rows] == ["vanilla", "small"]
    assert (rows[1].accuracy, rows[1].accuracy_low, rows[1].accuracy_high) == (0.8511, 0.8397, 0.8618)
    assert (rows[1].loss, rows[1].images) == (0.41, 4000)


def test_the_order_of_the_classes_does_not_matter() -> None:
    (row,) = comparison_rows([dataclasses.replace(SMALL, class_names=("cat", "bird", "automobile", "airplane"))])
    assert row.like_for_like


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "synthetic"}, "data set synthetic, not cifar10"),
        ({"fraction": 0.25}, "trained on 0.25 of the data, not all of it"),
        ({"class_names": ("airplane", "cat")}, "classes airplane, cat, not airplane, automobile, bird, cat"),
        ({"images": 400}, "400 test images, not 4000"),
        ({"model": "large"}, "nothing was published for large"),
        (
            {"dataset": "synthetic", "fraction": 0.1},
            "data set synthetic, not cifar10; trained on 0.1 of the data, not all of it",
        ),
    ],
)
def test_what_is_not_like_for_like_is_not_compared(changes: dict[str, object], reason: str) -> None:
    (row,) = comparison_rows([dataclasses.replace(SMALL, **changes)])  # type: ignore[arg-type]
    assert (row.published_accuracy, row.published_loss, row.difference_points) == (None, None, None)
    assert not row.like_for_like
    assert row.reason == reason
