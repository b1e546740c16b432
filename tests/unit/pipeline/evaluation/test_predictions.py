import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import WorkspaceError
from pipeline.evaluation.predictions import Predictions, load_predictions, most_confident_mistakes, save_predictions

Make = Callable[..., Predictions]

GOOD = Predictions(
    ids=np.array([5, 9], dtype=np.int64),
    labels=np.array([0, 1], dtype=np.int64),
    probabilities=np.array([[0.75, 0.25], [0.5, 0.5]], dtype=np.float32),
    class_names=("bird", "cat"),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array([5, 5])}, "each image once"),
        ({"ids": np.array([-1, 5])}, "non-negative"),
        ({"ids": np.array([5])}, "1 ids, 2 labels"),
        ({"ids": np.array([5.0, 9.0])}, "ids must be a 1-dimensional int64"),
        ({"labels": np.array([0, 2])}, r"labels must lie in 0\.\.1"),
        ({"labels": np.array([[0, 1]])}, "not 2-dimensional"),
        ({"probabilities": np.array([[0.75, 0.25], [0.5, 0.5]])}, "float32 array, not 2-dimensional float64"),
        ({"probabilities": np.array([[0.75, 0.25], [0.5, 0.4]], np.float32)}, r"row 1 sums to 0\.9"),
        ({"probabilities": np.array([[1.5, -0.5], [0.5, 0.5]], np.float32)}, "logits"),
        ({"probabilities": np.array([[np.nan, 1], [0.5, 0.5]], np.float32)}, "finite"),
        ({"class_names": ("bird",)}, "2 different class names"),
        ({"class_names": ("bird", "bird")}, "2 different class names"),
    ],
)
def test_unusable_predictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]


def test_no_predictions_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        Predictions(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2), np.float32), ("a", "b"))


def test_a_tie_goes_to_the_first_class() -> None:
    assert GOOD.predicted.tolist() == [0, 0]
    assert GOOD.predicted.dtype == np.int64
    assert GOOD.confidence.tolist() == [0.75, 0.5]


def test_predictions_survive_the_disk_to_the_bit(tmp_path: Path) -> None:
    names = ("oiseau", "猫")
    save_predictions(tmp_path / "p.npz", dataclasses.replace(GOOD, class_names=names))
    loaded = load_predictions(tmp_path / "p.npz")
    assert loaded.class_names == names
    for name in ("ids", "labels", "probabilities"):
        before, after = getattr(GOOD, name), getattr(loaded, name)
        assert before.dtype == after.dtype
        assert before.tobytes() == after.tobytes()


def test_the_same_predictions_give_the_same_bytes_and_leave_nothing_else_behind(tmp_path: Path) -> None:
    save_predictions(tmp_path / "a.npz", GOOD)
    save_predictions(tmp_path / "b.npz", GOOD)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


class Detonates:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_file_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    trap = np.empty(1, dtype=object)
    trap[0] = Detonates(tmp_path / "it ran")
    np.savez(path, ids=trap, labels=GOOD.labels, probabilities=GOOD.probabilities, class_names=["bird", "cat"])
    with pytest.raises(WorkspaceError, match="allow_pickle=False"):
        load_predictions(path)
    assert not (tmp_path / "it ran").exists()


def test_damaged_and_foreign_files_are_refused_with_advice(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    save_predictions(good, GOOD)
    whole = good.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(np.array([0.75, 0.25], np.float32).tobytes())] ^= 1
    lone_array = tmp_path / "lone.npy"
    np.save(lone_array, GOOD.probabilities)
    for content in (
        b"",
        b"not a zip",
        whole[:-30],
        whole[: len(whole) // 2],
        bytes(flipped),
        lone_array.read_bytes(),
    ):
        bad.write_bytes(content)
        with pytest.raises(WorkspaceError, match="remove it and evaluate"):
            load_predictions(bad)
    np.savez(bad, ids=GOOD.ids)
    with pytest.raises(WorkspaceError, match="labels"):
        load_predictions(bad)


def test_missing_predictions_are_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_predictions(tmp_path / "p.npz")


def test_mistakes_are_most_confident_first_and_ties_by_image_id(make_predictions: Make) -> None:
    predictions = make_predictions(
        labels=[0, 1, 1, 0, 1],
        probabilities=[[0.25, 0.75], [0.75, 0.25], [0.125, 0.875], [0.0625, 0.9375], [0.75, 0.25]],
        ids=[40, 30, 20, 10, 7],
    )
    mistakes = most_confident_mistakes(predictions, count=24)
    assert mistakes == [(3, 0, 1, 0.9375), (4, 1, 0, 0.75), (1, 1, 0, 0.75), (0, 0, 1, 0.75)]
    assert mistakes[0].predicted == 1
    assert most_confident_mistakes(predictions, count=2) == mistakes[:2]
    assert most_confident_mistakes(predictions, count=0) == []


def test_a_perfect_model_makes_no_mistakes(make_predictions: Make) -> None:
    assert most_confident_mistakes(make_predictions([0, 1], [[1, 0], [0, 1]]), count=24) == []
