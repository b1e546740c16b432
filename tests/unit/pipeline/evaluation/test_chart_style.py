"""The one style of all charts: they fit a column, name their units, and can be read without colour."""

import re
from collections.abc import Sequence
from itertools import combinations

import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from pipeline.evaluation import chart_style, plots
from pipeline.evaluation.chart_style import FIRST, SECOND, THIRD, WIDTH_INCHES
from pipeline.evaluation.metrics import compute
from pipeline.reports import charts as report_charts
from pipeline.reports.charts import ForecastRow, SeedsRow
from pipeline.search import plots as search_plots
from tuning.ledger import Finish, Row

COUNTED = {"epoch", "trial", "images", "learning rate", "predicted class", "true class"}
"""Quantities that have no unit."""


def row(number: int, outcome: str, value: float | None, peak_mb: float = 400.0) -> Row:
    finish = Finish(outcome, value, peak_mb, 500.0)  # type: ignore[arg-type]
    return Row(number, {"x": number}, "optuna", 1, "n", (), finish, forecast_mb=410.0)


@pytest.fixture
def charts(random_predictions) -> Sequence[Figure]:
    report = compute(random_predictions(400, 4))
    rows = [row(0, "completed", 0.5), row(1, "stopped", 0.4), row(2, "memory_cap", None), row(3, "completed", 0.6)]
    epochs = [
        {"epoch": 1, "train/loss": 1, "validation/loss": 1, "train/accuracy": 0.5, "validation/accuracy": 0.4},
        {"epoch": 2, "learning_rate": 0.1},
    ]
    return [
        plots.confusion_chart(report),
        plots.reliability_diagram(report),
        plots.class_scores_chart(report),
        plots.learning_curves(epochs, 1),
        search_plots.history([(0, 0.5, 0.5), (3, 0.6, 0.6)], rows),
        search_plots.importance({"train.learning_rate": 0.7, "model.dims": 0.3}),
        search_plots.memory([(410, 400), (420, 425)], 500),
        report_charts.seeds_chart(
            [SeedsRow("A", [0.8, 0.9], 0.85, 0.7, 0.99, 0.84), SeedsRow("B", [1], 1, 1, 1, None)]
        ),
        report_charts.forecast_chart([ForecastRow("A", 3.0, 4.0), ForecastRow("B", None, 2.0)], "time", "s"),
    ]


def series_of(axes: Axes) -> list[object]:
    """What tells the labelled lines and bars of a panel apart in grey."""
    lines = [
        (line.get_marker(), line.get_linestyle()) for line in axes.lines if not str(line.get_label()).startswith("_")
    ]
    bars = [("bar", one.patches[0].get_hatch()) for one in axes.containers if isinstance(one, BarContainer)]
    return [*lines, *bars]


def test_every_chart_is_as_wide_as_a_column(charts):
    assert {figure.get_figwidth() for figure in charts} == {WIDTH_INCHES}


def test_every_axis_has_a_label_with_its_unit(charts):
    labels = [text for figure in charts for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())]
    assert all(label in COUNTED or re.search(r" \((%|MB|nats|s)\)$", label) for label in labels if label)
    for figure in charts:
        assert figure.axes[-1].get_xlabel(), "the lowest panel names its axis"


def test_no_two_series_of_a_panel_differ_by_colour_alone(charts):
    panels = [axes for figure in charts for axes in figure.axes]
    assert any(len(series_of(axes)) >= 3 for axes in panels)
    for axes in panels:
        drawn = series_of(axes)
        assert len(set(drawn)) == len(drawn)


def test_the_series_differ_in_everything_that_can_be_seen():
    for one, other in combinations((FIRST, SECOND, THIRD), 2):
        assert one.colour != other.colour
        assert one.marker != other.marker
        assert one.line != other.line
        assert one.hatch != other.hatch


def test_no_text_is_smaller_than_can_be_read(charts):
    for figure in charts:
        figure.draw_without_rendering()
        sizes = [text.get_fontsize() for text in figure.findobj(lambda one: hasattr(one, "get_fontsize"))]
        assert min(sizes) >= chart_style.SMALL
