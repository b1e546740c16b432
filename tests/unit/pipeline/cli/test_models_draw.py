"""`seqpipe models draw`: which files it writes, and what it says."""

import json
from pathlib import Path

import pytest

from pipeline.cli import options
from pipeline.cli.models_draw import draw
from pipeline.errors import WorkspaceError

TINY = ["model.dims=[16, 32]", "model.depths=[1, 1]"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_drawing_is_an_svg_and_a_png_of_the_models_name(here, capsys):
    draw(options.Model.small, None, TINY, 1, None, False)
    assert sorted(path.name for path in here.iterdir()) == ["small.png", "small.svg"]
    assert capsys.readouterr().out.splitlines() == ["small.svg", "small.png"]


def test_out_names_them_dots_included(here):
    (here / "pictures").mkdir()
    draw(None, None, TINY, 1, Path("pictures/v1.2"), False)
    assert sorted(path.name for path in (here / "pictures").iterdir()) == ["v1.2.png", "v1.2.svg"]


@pytest.mark.parametrize("named", ["x.svg", "x.png"])
def test_who_names_one_of_the_files_gets_both(here, named):
    draw(None, None, TINY, 1, Path(named), False)
    assert sorted(path.name for path in here.iterdir()) == ["x.png", "x.svg"]


def test_json_has_the_layers_and_draws_only_where_it_is_told_to(here, capsys):
    draw(options.Model.small, None, TINY, 1, None, True)
    found = json.loads(capsys.readouterr().out)
    assert found["layers"][0]["name"] == "stem"
    assert list(here.iterdir()) == []
    draw(options.Model.small, None, TINY, 1, Path("x"), True)
    assert json.loads(capsys.readouterr().out) == found
    assert len(list(here.iterdir())) == 2


def test_settings_change_what_is_drawn(capsys):
    for set_ in (TINY, [*TINY, "model.depths=[3, 1]"]):
        draw(options.Model.small, None, set_, 2, None, True)
    few, more = capsys.readouterr().out.split("}\n{")
    assert more.count('"levels.0.blocks.') == few.count('"levels.0.blocks.') + 2


def test_a_place_that_cannot_be_written_is_one_line():
    with pytest.raises(WorkspaceError, match="cannot be written"):
        draw(None, None, TINY, 1, Path("nowhere/x"), False)
