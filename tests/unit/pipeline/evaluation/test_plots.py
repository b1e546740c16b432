import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D

import pipeline
from pipeline.evaluation.chart_style import save_figure
from pipeline.evaluation.metrics import compute
from pipeline.evaluation.plots import class_scores_chart, confusion_chart, learning_curves, reliability_diagram
from pipeline.evaluation.predictions import Predictions

Make = Callable[..., Predictions]
Random = Callable[[int, int], Predictions]


def xs(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata(), dtype=float)]


def ys(line: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(line.get_ydata(), dtype=float)]


def ink(path: Path) -> float:
    """The share of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.98).mean())


def test_the_confusion_chart_says_every_count_and_its_share_of_the_row(
    make_predictions: Make, tmp_path: Path
) -> None:
    predictions = make_predictions([0, 0, 0, 0, 1], [[1, 0, 0]] * 3 + [[0, 1, 0], [0, 1, 0]])
    figure = confusion_chart(compute(predictions))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    cells = [text.get_text() for text in axes.texts]
    assert cells == [
        *("3\n75.0 %", "1\n25.0 %", "0\n0.0 %"),
        *("0\n0.0 %", "1\n100.0 %", "0\n0.0 %"),
        *("0\n0.0 %", "0\n0.0 %", "0\n0.0 %"),  # no bird among the images
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["airplane", "automobile", "bird"]
    assert "accuracy 80.00 %" in axes.get_title("left")
    save_figure(figure, tmp_path / "c.png")
    assert ink(tmp_path / "c.png") > 0.1


@pytest.mark.parametrize("classes", [4, 10])
def test_text_in_the_confusion_chart_fits_its_cell(random_predictions: Random, classes: int) -> None:
    axes = (figure := confusion_chart(compute(random_predictions(10_000, classes)))).axes[0]
    figure.draw_without_rendering()
    assert len(axes.texts) == classes**2
    cell_px = axes.get_window_extent().width / classes
    assert max(text.get_window_extent().width for text in axes.texts) < 0.9 * cell_px
    assert max(text.get_window_extent().height for text in axes.texts) < 0.9 * cell_px


def test_the_reliability_diagram_shows_the_bins_and_the_error(make_predictions: Make) -> None:
    report = compute(
        make_predictions([0, 1, 0, 1], [[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.55, 0.45]]), calibration_bins=5
    )
    top, bottom = reliability_diagram(report).axes
    assert "ECE 41.25 %" in top.get_title("left")
    assert [bar.get_height() for bar in top.patches] == [0, 0, 0, 1, 0.5]  # type: ignore[attr-defined]
    assert [bar.get_height() for bar in bottom.patches] == [0, 0, 1, 1, 2]  # type: ignore[attr-defined]
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("accuracy (%)", "images")
    assert bottom.get_xlabel() == "confidence of the prediction (%)"
    assert xs(top.lines[1]) == pytest.approx([0.55, 0.7, 0.9])


def test_the_class_chart_has_three_labelled_bars_per_class(make_predictions: Make) -> None:
    report = compute(make_predictions([0, 0, 1], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]))
    figure = class_scores_chart(report)
    (axes,) = figure.axes
    heights = [[bar.get_width() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, [[1, 0.5, 0], [0.5, 1, 0], [2 / 3, 2 / 3, 0]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["precision", "recall", "F1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "airplane\n(2 images)", "automobile\n(1 images)", "bird\n(0 images)",
    ]  # fmt: skip
    assert axes.get_xlabel() == "score (%)"


def epochs(validation_accuracies: list[float]) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train/loss": 1 / epoch,
            "train/accuracy": 1 - 0.5 / epoch,
            "validation/loss": 2 / epoch,
            "validation/accuracy": accuracy,
            "learning_rate": 1e-3 / epoch,
        }
        for epoch, accuracy in enumerate(validation_accuracies, start=1)
    ]


def marked_epochs(figure: Figure) -> list[float]:
    return [xs(axes.lines[-1])[0] for axes in figure.axes]


def test_learning_curves_draw_every_series_of_every_epoch() -> None:
    rows = epochs([0.5, 0.7, 0.6])
    loss, accuracy, rate = learning_curves(rows, best_epoch=2).axes
    drawn = {
        "train/loss": loss.lines[0],
        "validation/loss": loss.lines[1],
        "train/accuracy": accuracy.lines[0],
        "validation/accuracy": accuracy.lines[1],
        "learning_rate": rate.lines[0],
    }
    for key, line in drawn.items():
        assert xs(line) == [1, 2, 3]
        assert ys(line) == [row[key] for row in rows]
    labels = [axes.get_ylabel() for axes in (loss, accuracy, rate)]
    assert labels == ["cross entropy (nats)", "accuracy (%)", "learning rate"]
    assert rate.get_xlabel() == "epoch"
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "training (augmented)",
        "validation",
        "best epoch (2)",
    ]


def test_the_best_epoch_is_marked_in_every_panel() -> None:
    assert marked_epochs(learning_curves(epochs([0.5, 0.7, 0.6, 0.7]), best_epoch=3)) == [3, 3, 3]


def test_learning_curves_leave_out_missing_values(tmp_path: Path) -> None:
    rows = epochs([0.5, 0.7, float("nan")])
    del rows[0]["validation/accuracy"]
    assert xs(learning_curves(rows, best_epoch=2).axes[1].lines[1]) == [2, 3]
    save_figure(learning_curves([{"epoch": 1}], best_epoch=1), tmp_path / "bare.png")


def test_one_epoch_has_one_whole_number_on_its_axis() -> None:
    figure = learning_curves(epochs([0.5]), best_epoch=1)
    figure.draw_without_rendering()
    low, high = figure.axes[2].get_xlim()
    assert [tick for tick in figure.axes[2].get_xticks() if low <= tick <= high] == [1]


def test_the_users_own_style_changes_nothing(random_predictions: Random, tmp_path: Path) -> None:
    report = compute(random_predictions(100, 4))
    save_figure(confusion_chart(report), tmp_path / "a.png")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "figure.facecolor": "red"}):
        save_figure(confusion_chart(report), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30, "outside of ours it stays the user's"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_is_written_to_the_same_bytes_in_a_modest_png(random_predictions: Random, tmp_path: Path) -> None:
    report = compute(random_predictions(1000, 10))
    for name in ("a.png", "b.png"):
        save_figure(confusion_chart(report), tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"atplotlib" not in content  # the version would change the bytes
    assert 10_000 < len(content) < 400_000


def test_a_label_beyond_the_edge_of_the_figure_is_not_cut(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(-0.5, 0.5, "a class with a long name")
    save_figure(figure, tmp_path / "x.png")
    picture = imread(tmp_path / "x.png")[..., :3]
    figure.draw_without_rendering()
    assert picture.shape[1] > figure.texts[0].get_window_extent().width
    assert (picture[:, :5] == 1).all()
    assert (picture[:, 5:27] < 0.5).any()


@pytest.mark.parametrize("home", [None, "/proc/no such home"])
def test_figures_need_no_display_no_home_and_no_pyplot(home: str | None, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.evaluation import chart_style, galleries, plots\n"
        "chart_style.save_figure(plots.learning_curves([{'epoch': 1, 'train/loss': 1.0}], 1), Path(sys.argv[1]))\n"
        "assert not {'matplotlib.pyplot', 'torch', 'mlflow'} & set(sys.modules)"
    )
    unwanted = (
        "HOME",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "MPLCONFIGDIR",
        "MPLBACKEND",
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
    )
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    if home is not None:
        environment["HOME"] = home
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.png")],
        cwd=Path(pipeline.__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert ink(tmp_path / "x.png") > 0.01
