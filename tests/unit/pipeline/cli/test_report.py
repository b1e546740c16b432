"""`seqpipe report` in a workspace with two trainings and their predictions."""

import json
from contextlib import nullcontext

import pytest
from paired_predictions import predictions_of

from pipeline.cli import report as command
from pipeline.errors import ConfigError
from pipeline.evaluation.predictions import save_predictions
from pipeline.reports import report_page
from pipeline.stages.results import TrainedModel
from pipeline.tracking.delivery import Tracker


@pytest.fixture
def keys(house, monkeypatch):
    """Of two trainings; nothing is forecast, and the store is away."""
    found = []
    for seed, right in enumerate(([1] * 10 + [0] * 10, [1] * 14 + [0] * 6)):
        house.accuracies[seed] = 0.5 + seed / 10
        key = house.run(f"seed={seed}", through="train").results[TrainedModel].run_key
        folder = house.workspace.predictions / key
        folder.mkdir(parents=True)
        save_predictions(folder / "predictions.npz", predictions_of(right))
        found.append(key)
    monkeypatch.chdir(house.workspace.root)
    monkeypatch.setattr(command, "_forecasts", nullcontext)
    monkeypatch.setattr(Tracker, "deliver_recorded", lambda self, key, force=False: False)
    return found


def test_it_writes_the_page_here_and_ends_stdout_with_its_path(keys, house, capsys):
    command.report(keys)
    shown = capsys.readouterr()
    assert shown.out == "report.html\n"
    assert "not in MLflow yet" in shown.err
    page = (house.workspace.root / "report.html").read_text()
    assert "vanilla, 2 classes, seeds 0, 1" in page
    command.report(keys[:1])
    assert "seeds 0, 1" not in (house.workspace.root / "report.html").read_text(), "one of ours is replaced"


@pytest.mark.parametrize(("flag", "name"), [("html", "mine.html"), ("card", "mine.md")])
def test_a_file_that_no_report_has_written_is_left_alone(keys, house, flag, name):
    mine = house.workspace.root / name
    mine.write_text("my own")
    with pytest.raises(ConfigError, match=f"mine.* is there and was not made by .*--{flag}"):
        command.report(keys, **{flag: mine})
    assert mine.read_text() == "my own"
    assert not (house.workspace.root / "report.html").exists(), "nothing is written at all"
    with pytest.raises(ConfigError, match="cannot be written"):
        command.report(keys, **{flag: house.workspace.root})


def test_as_json_it_is_one_document_and_a_page_only_where_one_is_asked_for(keys, house, capsys):
    command.report(keys, as_json=True)
    content = json.loads(capsys.readouterr().out)
    [group] = content["groups"]
    assert group["test_accuracy"]["mean"] == pytest.approx(0.6)
    assert [one["key"] for one in group["trainings"]] == keys
    assert not (house.workspace.root / "report.html").exists()
    assert not (house.workspace.hidden / "reports").exists()
    command.report(keys, as_json=True, html=house.workspace.root / "page.html")
    assert report_page.is_ours((house.workspace.root / "page.html").read_bytes())


def test_the_card_is_of_the_best_on_validation_images_and_that_is_said(keys, house, capsys):
    card = house.workspace.root / "card.md"
    command.report(keys, card=card, as_json=True)
    assert f"({keys[1]}), the best of 2 on validation images" in capsys.readouterr().err
    assert "70.00 % of 20 images" in card.read_text()
    command.report(keys, card=card, as_json=True)


def test_all_and_words_at_once_are_refused(keys):
    with pytest.raises(ConfigError, match="--all is everything here"):
        command.report(keys, every=True)


def test_a_shell_is_offered_what_there_is(keys):
    assert command.reportable("") == ["champion", *sorted(keys)]
    assert command.reportable(keys[0]) == [keys[0]]


def test_page_and_card_in_one_file_are_refused(keys, house):
    one = house.workspace.root / "both"
    with pytest.raises(ConfigError, match=r"--html and --card are both .*both; name two files"):
        command.report(keys, html=one, card=one)
    assert not one.exists()
