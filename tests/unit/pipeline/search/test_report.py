import csv
import json

import pytest
from ledgers import end, row

from pipeline.config.resolution import resolve
from pipeline.search import report


def ended(number, value, outcome="completed"):
    config = {"train.learning_rate": 0.001 * (number + 1), "model.hidden": 16}
    return row(number, config, end(outcome, value))


ROWS = [
    ended(0, 0.5), ended(1, 0.8), ended(2, 0.9, "stopped"), ended(3, None, "memory_cap"), ended(4, 0.7), ended(5, 0.6)
]  # fmt: skip


@pytest.fixture
def written(tmp_path, base, space):
    return report.write(tmp_path, base, space, ROWS, ROWS[1])


def test_the_best_config_is_one_that_a_run_takes(written, base):
    config = resolve(None, written.best_config)
    assert (config.train.learning_rate, config.model.hidden) == (0.002, 16)
    assert config.data == base.data
    assert config.compute == base.compute
    assert written.best_config.read_text().startswith("# trial 1 of 6: validation accuracy 0.8000")


def test_the_tables_hold_every_trial(written, tmp_path):
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["outcome"] for row in rows] == [each.finish.outcome for each in ROWS]
    assert rows[3]["peak_memory_mb"] == "710.0"
    assert rows[3]["validation_accuracy"] == ""
    assert rows[1]["train.learning_rate"] == "0.002"
    assert [each["config"]["model.hidden"] for each in json.loads((tmp_path / "trials.json").read_bytes())] == [
        16
    ] * 6


def test_the_plots_are_pictures_and_all_files_are_named(written):
    assert sorted(path.name for path, _ in written.files) == [
        "best.yaml", "history.png", "importance.png", "trials.csv", "trials.json",
    ]  # fmt: skip
    for path, folder in written.files:
        assert path.is_file()
        assert (folder == "plots") == (path.suffix == ".png")
        if folder:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert set(written.importances) == {"train.learning_rate", "model.hidden"}


def test_without_a_completed_trial_there_is_no_best_config_and_no_plot(tmp_path, base, space):
    written = report.write(tmp_path, base, space, [ended(0, None, "memory_cap")], None)
    assert written.best_config is None
    assert [path.name for path, _ in written.files] == ["trials.csv", "trials.json"]


def test_ranked_the_completed_come_first():
    assert [each.number for each in report.ranked(ROWS)] == [1, 4, 5, 0, 2, 3]


def test_settings_are_told_where_they_differ_from_the_default():
    default = {"train.learning_rate": 0.001, "model.hidden": 16}
    assert report.settings_in_words(ROWS[0], default) == "the default config"
    assert report.settings_in_words(ROWS[1], default) == "learning_rate 0.002"
    assert report.settings_in_words(ROWS[0]) == "learning_rate 0.001, hidden 16"


def test_the_description_shows_the_best_and_how_to_run_it(base, space):
    text = report.description(base, ROWS, space, {"model.hidden": 0.75, "train.learning_rate": 0.25}, "seqpipe")
    assert text.startswith("**vanilla**, 4 classes, 2 epochs: 6 trials over `train.learning_rate`, `model.hidden`.")
    assert "| 001 | 0.8000 | learning_rate 0.002, hidden 16 |" in text
    listed = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| 0")]
    assert listed == ["001", "004", "005", "000"], "the completed ones, the best first"
    assert "`seqpipe run all --config best.yaml`" in text
    assert "model.hidden 75 %" in text


@pytest.mark.parametrize(
    ("peak", "expected"),
    [(710.0, "held 710 MB, cap 700 MB"), (160.0, "held 160 MB and asked for more than its cap of 700 MB")],
)
def test_what_a_capped_trial_held_is_told(peak, expected):
    assert report.memory_in_words(end("memory_cap", peak_mb=peak)) == expected


def test_an_infeasible_trial_has_a_forecast_and_no_peak():
    infeasible = end("memory_cap", peak_mb=1240.0, cap_mb=1000.0, error="needs 1240 MB, cap 1000", is_forecast=True)
    record = report.as_record(row(0, {}, infeasible, starts=0))
    assert (record["peak_memory_mb"], record["forecast_memory_mb"], record["fitted"]) == (None, 1240.0, None)
    assert report.memory_in_words(infeasible) == "needs 1240 MB, cap 1000 MB: not started"


def test_a_fitted_trial_says_how_and_what_was_forecast():
    record = report.as_record(row(0, {}, end(value=0.5), forecast_mb=290.0, fitted="8 images at once"))
    assert (record["peak_memory_mb"], record["forecast_memory_mb"]) == (303.0, 290.0)
    assert record["fitted"] == "8 images at once"
    assert report.as_record(ended(0, 0.5))["forecast_memory_mb"] is None


def test_a_trial_says_what_it_computed_with(tmp_path, base, space):
    facts = {"precision": "bf16", "kernel": "native", "device": "cpu"}
    record = report.as_record(row(0, {}, end(value=0.5), facts=facts))
    assert (record["precision"], record["kernel"]) == ("bf16", "native")
    assert report.as_record(ended(0, 0.5))["precision"] is None
