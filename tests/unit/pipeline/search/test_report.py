import csv
import json

import pytest

from pipeline.config.resolution import resolve
from pipeline.search import report
from tuning.ledger import Finish, Row


def row(number, value, outcome="completed", **config):
    values = {"train.learning_rate": 0.001 * (number + 1), "model.hidden": 16, **config}
    finish = Finish(outcome, value, 300.0, 700.0, "laptop", 2, 9.5, error="no data" if outcome == "failed" else "")
    return Row(number, values, "optuna", 1, "laptop", (), finish)


ROWS = [row(0, 0.5), row(1, 0.8), row(2, 0.9, "stopped"), row(3, None, "memory_cap"), row(4, 0.7), row(5, 0.6)]


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
    assert rows[3]["peak_memory_mb"] == "300.0"
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
    written = report.write(tmp_path, base, space, [row(0, None, "memory_cap")], None)
    assert written.best_config is None
    assert [path.name for path, _ in written.files] == ["trials.csv", "trials.json"]


def test_ranked_the_completed_come_first():
    assert [each.number for each in report.ranked(ROWS)] == [1, 4, 5, 0, 2, 3]


def test_settings_are_told_where_they_differ_from_the_default():
    default = {"train.learning_rate": 0.001, "model.hidden": 16}
    assert report.settings_in_words(ROWS[0], default) == "the default config"
    assert report.settings_in_words(ROWS[1], default) == "learning_rate 0.002"
    assert report.settings_in_words(ROWS[0]) == "learning_rate 0.001, hidden 16"


def test_the_note_shows_the_best_and_how_to_run_it(space):
    text = report.note("**small**", ROWS, space, {"model.hidden": 0.75, "train.learning_rate": 0.25}, "seqpipe")
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
    assert report.memory_in_words(Finish("memory_cap", None, peak, 700.0)) == expected
