import shlex
from pathlib import Path

from pipeline.cli.next_command import settings_words


def test_the_words_of_the_next_command_are_as_short_as_a_person_would_type_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = settings_words(
        None, tmp_path / "configs" / "mine.yaml", ["train.epochs=2", "data.classes=[cat,dog]"], None, None
    )
    assert words["--config"] == ["configs/mine.yaml"]
    assert shlex.join(words["--set"]) == "train.epochs=2 'data.classes=[cat,dog]'"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_words(None, Path("~/mine.yaml"), None, 3, None)["--config"] == ["mine.yaml"]
