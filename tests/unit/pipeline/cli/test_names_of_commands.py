"""How commands and paths are named in messages."""

import shutil
import sys
from pathlib import Path

import pytest

from pipeline.cli.console import as_typed, program, short_path


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the program: which file it is, from which folder, with which PATH."""

    def started(file: str, cwd: str = ".", path: str = "") -> str:
        for place in (tmp_path / file, tmp_path / path / "seqpipe" if path else tmp_path / file):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(mode=0o755)
        (tmp_path / cwd).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / cwd)
        monkeypatch.setenv("PATH", str(tmp_path / path) if path else "/nowhere")
        monkeypatch.setattr(sys, "argv", [str(tmp_path / file)])
        return program()

    return started


@pytest.mark.parametrize(
    ("where", "typed"),
    [
        ({"file": "v/bin/seqpipe"}, "v/bin/seqpipe"),
        ({"file": "v/bin/seqpipe", "path": "v/bin"}, "seqpipe"),
        ({"file": "v/bin/seqpipe", "path": "another/bin"}, "v/bin/seqpipe"),
        ({"file": "v/bin/seqpipe", "cwd": "below/it"}, "../../v/bin/seqpipe"),
        ({"file": "v/bin/seqpipe", "cwd": "v/bin"}, "./seqpipe"),
    ],
)
def test_the_program_is_called_as_a_person_would_type_it(start, where, typed):
    assert start(**where) == typed


def test_a_path_far_away_is_told_in_full(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*"abcdefghijklmnopqrstuvwxyz")
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert short_path(Path("/tmp/x.yaml")) == "/tmp/x.yaml"
    assert short_path(tmp_path / "/".join("abcdefghijklmnopqrstuvwxyz") / "c" / "x.yaml") == "c/x.yaml"


def test_a_message_names_a_command_as_it_has_to_be_typed(start):
    start(file="my env/bin/seqpipe")
    assert as_typed("do `seqpipe gc` or `seqpipe ui`") == "do `'my env/bin/seqpipe' gc` or `'my env/bin/seqpipe' ui`"


def test_a_working_folder_that_is_gone_is_no_trouble(start, tmp_path):
    start(file="v/bin/seqpipe", cwd="gone")
    shutil.rmtree(tmp_path / "gone")
    assert program() == str(tmp_path / "v/bin/seqpipe")
