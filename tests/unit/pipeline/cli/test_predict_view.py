"""What predict writes: a table, a JSON document, a CSV file; each as it grows, whatever names the files have."""

import csv
import json
import os
from contextlib import suppress
from types import SimpleNamespace

import pytest

from pipeline.cli.predict_view import Views
from pipeline.errors import WorkspaceError
from pipeline.inference.prediction import Classified, Prediction, Unreadable
from pipeline.tracking.version_choice import StoredVersion

CLASSES = ("airplane", "bird", "cat")
CLASSIFIER = SimpleNamespace(
    classes=CLASSES,
    card=SimpleNamespace(model="small"),
    version=StoredVersion("m", "3", ("champion",), "r1", "file:///x"),
)
ROWS = [
    Classified("photos/x.png", Prediction(CLASSES, (0.125, 0.25, 0.625))),
    Unreadable("photos/y.png", "empty (0 bytes)"),
    Classified("two\nlines.png", Prediction(CLASSES, (1.0, 0.0, 0.0))),
]
STRANGE = os.fsdecode(b'\xff, "q".png')


def write(rows=ROWS, classifier=CLASSIFIER, top=2, csv_name=None, as_json=False, is_complete=True):
    with Views(classifier, top, csv_name=csv_name, as_json=as_json) as views:
        for row in rows:
            views.add([row])
        views.add([])
        views.close(is_complete=is_complete)


def test_the_table_has_the_best_classes_of_each_image_and_its_path_last(capsys):
    write()
    assert capsys.readouterr().out.splitlines() == [
        "class     probability  class     probability  image",
        "cat           62.50 %  bird          25.00 %  photos/x.png",
        "airplane     100.00 %  bird           0.00 %  two\\nlines.png",
    ]


def test_more_classes_than_there_are_is_all_of_them(capsys):
    write(ROWS[:1], top=99)
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == [*["class", "probability"] * 3, "image"]
    assert line.split() == [
        *("cat", "62.50", "%", "bird", "25.00", "%", "airplane", "12.50", "%"),
        "photos/x.png",
    ]


def test_json_is_one_document_with_every_file(capsys):
    write(as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "model": {
            "name": "m", "version": "3", "aliases": ["champion"], "run_id": "r1",
            "architecture": "small", "classes": list(CLASSES),
        },
        "images": [
            {
                "path": "photos/x.png", "class": "cat", "probability": 0.625,
                "best": [{"class": "cat", "probability": 0.625}, {"class": "bird", "probability": 0.25}],
            },
            {"path": "photos/y.png", "error": "empty (0 bytes)"},
            {
                "path": "two\nlines.png", "class": "airplane", "probability": 1.0,
                "best": [{"class": "airplane", "probability": 1.0}, {"class": "bird", "probability": 0.0}],
            },
        ],
        "classified": 2, "unreadable": 1, "complete": True,
    }  # fmt: skip


def test_json_is_a_document_without_images_too(capsys):
    write([], classifier=None, as_json=True, is_complete=False)
    found = json.loads(capsys.readouterr().out)
    assert found == {"model": None, "images": [], "classified": 0, "unreadable": 0, "complete": False}


def test_csv_has_the_probability_of_every_class_and_why_a_file_has_none(tmp_path, capsys):
    write(csv_name=str(tmp_path / "x.csv"))
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "class", "probability", "probability_airplane", "probability_bird", "probability_cat", "error"],
        ["photos/x.png", "cat", "0.625", "0.125", "0.25", "0.625", ""],
        ["photos/y.png", "", "", "", "", "", "empty (0 bytes)"],
        ["two\nlines.png", "airplane", "1.0", "1.0", "0.0", "0.0", ""],
    ]
    assert "cat" in capsys.readouterr().out, "the table is there as well"


def test_csv_on_stdout_takes_the_place_of_the_table(capsys):
    write(csv_name="-")
    assert capsys.readouterr().out.splitlines()[0].startswith("path,class,probability,")


def test_a_name_that_is_not_utf8_spoils_neither_json_nor_csv(tmp_path, capsys):
    rows = [Classified(STRANGE, ROWS[0].prediction)]
    write(rows, as_json=True, csv_name=str(tmp_path / "x.csv"))
    assert json.loads(capsys.readouterr().out)["images"][0]["path"] == STRANGE
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1][0] == '\\udcff, "q".png'


def test_probabilities_keep_the_digits_of_fp32(capsys):
    share = 0.1234567910432815551758  # a float32
    write([Classified("x", Prediction(("a", "b"), (share, 1 - share)))], as_json=True)
    assert abs(json.loads(capsys.readouterr().out)["images"][0]["best"][1]["probability"] - share) < 1e-9


def test_a_csv_file_appears_when_it_is_whole_and_the_old_one_stays_after_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")
    with suppress(RuntimeError), Views(CLASSIFIER, 1, csv_name=str(path), as_json=False) as views:
        views.add(ROWS)
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_csv_file_that_cannot_be_written_is_told_before_anything_else_is_shown(tmp_path, capsys):
    with pytest.raises(WorkspaceError, match="cannot be written"):
        Views(CLASSIFIER, 1, csv_name=str(tmp_path / "nowhere" / "x.csv"), as_json=True)
    assert capsys.readouterr().out == ""


def test_csv_goes_into_a_pipe_as_well(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(csv_name=str(tmp_path / "pipe"))
    assert os.read(reader, 10) == b"path,class"
    os.close(reader)
