import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cli import next_command, options
from pipeline.cli.next_command import after_run, settings_words
from pipeline.config.resolution import resolve


@pytest.fixture(autouse=True)
def _program(monkeypatch):
    monkeypatch.setattr(next_command, "program", lambda: "seqpipe")


def outcomes(*models, complete=True):
    return [SimpleNamespace(config=resolve(model), is_complete=complete) for model in models]


def test_the_words_of_the_next_command_are_as_short_as_a_person_would_type_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configs" / "mine.yaml"
    words = settings_words(None, file, ["train.epochs=2", "data.classes=[cat,dog]"], None, None)
    assert words["--config"] == ["configs/mine.yaml"]
    assert shlex.join(words["--set"]) == "train.epochs=2 'data.classes=[cat,dog]'"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_words(None, Path("~/mine.yaml"), None, 3, None)["--config"] == ["mine.yaml"]


def test_while_stages_are_left_it_is_the_run_of_all_with_the_same_settings():
    words = settings_words([options.Model("vanilla")], None, ["train.epochs=2"], 3, options.Device.cpu)
    command = after_run(outcomes("vanilla", complete=False), words)
    assert command == "seqpipe run all --model vanilla --set train.epochs=2 --seed 3 --device cpu"
    words = settings_words([options.Model("vanilla")], None, None, None, None, options.Recipe("best"))
    assert after_run(outcomes("vanilla", complete=False), words).endswith("run all --model vanilla --recipe best")


def test_after_all_stages_it_is_the_ui_or_another_model():
    words = settings_words([options.Model("small")], None, ["train.epochs=2"], None, None)
    command = after_run(outcomes("small"), words)
    assert command == "seqpipe ui; or another model: seqpipe run all --model medium --set train.epochs=2"
    assert "--model vanilla" in after_run(outcomes("small", "medium"), words)


def test_with_no_other_model_or_settings_that_are_for_one_it_is_the_ui_alone(tmp_path):
    none = settings_words(None, None, None, None, None)
    assert after_run(outcomes(*(model.value for model in options.Model)), none) == "seqpipe ui"
    assert after_run(outcomes("small"), none | {"--set": ["model.dropout=0.1"]}) == "seqpipe ui"
    assert after_run(outcomes("small"), none | {"--config": ["mine.yaml"]}) == "seqpipe ui"
