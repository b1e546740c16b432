from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.evaluation.chart_style import save_figure
from pipeline.evaluation.galleries import contact_sheet, mistakes_gallery
from pipeline.evaluation.predictions import Mistake

CLASSES = ("airplane", "bird", "cat")
IMAGES = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 3), 20, dtype=np.uint8)


def shown(figure: Figure) -> list[tuple[str, int]]:
    """Caption and grey value of every picture in a gallery."""
    return [
        (axes.get_title(), int(np.asarray(image.get_array())[0, 0, 0]))
        for axes in figure.axes
        for image in axes.images
    ]


def test_each_mistake_is_shown_with_its_classes_and_the_confidence() -> None:
    mistakes = [Mistake(row=5, label=2, predicted=1, confidence=0.9812), Mistake(3, 0, 2, 0.5)]
    figure = mistakes_gallery(IMAGES, mistakes, CLASSES)
    assert shown(figure) == [("cat taken for\nbird 98 %", 100), ("airplane taken for\ncat 50 %", 60)]
    assert all(image.get_interpolation() == "nearest" for axes in figure.axes for image in axes.images)


@pytest.mark.parametrize(("confidence", "text"), [(0.9999, ">99 %"), (1.0, "100 %"), (0.99, "99 %")])
def test_a_confidence_is_never_rounded_up_to_certainty(confidence: float, text: str) -> None:
    figure = mistakes_gallery(IMAGES, [Mistake(0, 0, 1, confidence)], CLASSES)
    assert shown(figure)[0][0].endswith(f" {text}")


@pytest.mark.parametrize("count", [1, 4, 7, 12])
def test_a_grid_that_is_not_full_shows_each_mistake_once(count: int, tmp_path: Path) -> None:
    mistakes = [Mistake(row, 0, 1, 0.9) for row in range(count)]
    figure = mistakes_gallery(IMAGES, mistakes, CLASSES)
    assert [grey for _, grey in shown(figure)] == [20 * row for row in range(count)]
    save_figure(figure, tmp_path / "m.png")
    assert (imread(tmp_path / "m.png")[..., 0] < 0.98).mean() > 0.1


def test_a_figure_without_mistakes_says_so(tmp_path: Path) -> None:
    figure = mistakes_gallery(IMAGES, [], CLASSES)
    assert shown(figure) == []
    assert [text.get_text() for text in figure.texts] == ["No mistakes: every image was classified correctly"]
    save_figure(figure, tmp_path / "m.png")
    assert (imread(tmp_path / "m.png")[..., 0] < 0.5).any()


def test_the_contact_sheet_has_a_row_per_class_in_class_order() -> None:
    labels = np.array([2, 2, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0])  # no bird
    figure = contact_sheet(IMAGES, labels, CLASSES)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["airplane (8)", "bird (0)", "cat (4)"]
    sheet = np.asarray(axes.images[0].get_array())
    assert sheet.shape == (3 * 4 + 2 * 2, 10 * 4 + 9 * 2, 3)
    airplanes, birds, cats = sheet[1::6, 1::6, 0].tolist()
    assert airplanes == [40, 80, 120, 140, 160, 180, 200, 220, 255, 255]
    assert birds == [255] * 10
    assert cats == [0, 20, 60, 100] + [255] * 6
    assert (sheet[:, 4:6] == 255).all()
    assert (sheet[4:6] == 255).all()


def test_the_contact_sheet_has_at_most_ten_images_of_a_class() -> None:
    figure = contact_sheet(IMAGES, np.zeros(12, int), CLASSES)
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    assert sheet[1::6, 1::6, 0][0].tolist() == [20 * row for row in range(10)]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), np.zeros(12, int), "uint8"),
        (IMAGES.transpose(0, 3, 1, 2), np.zeros(12, int), "N x H x W x 3"),
        (IMAGES, np.zeros(11, int), "as many labels"),
        (IMAGES, np.full(12, 3), r"0\.\.2"),
    ],
)
def test_a_contact_sheet_of_something_else_is_refused(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet(images, labels, CLASSES)


def test_a_gallery_of_float_images_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        mistakes_gallery(IMAGES.astype(np.float32), [Mistake(0, 0, 1, 0.9)], CLASSES)
