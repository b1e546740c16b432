"""`seqpipe predict` with a stand-in for the model: what is told, which exit code, and how it is left early."""

import json
import os
import signal

import pytest
from PIL import Image

from pipeline import stop
from pipeline.cli import predict as command
from pipeline.cli import streams
from pipeline.errors import ConfigError, ImageError, InterruptedRunError
from pipeline.inference import classify
from pipeline.inference.model_card import ModelCard
from pipeline.inference.prediction import Prediction
from pipeline.tracking.version_choice import StoredVersion

CLASSES = ("dark", "light")


class Brightness:
    """Says how light an image is."""

    classes = CLASSES
    card = ModelCard("small", {}, CLASSES, (0.0,) * 3, (1.0,) * 3, accuracy=0.9)
    version = StoredVersion("m", "1", ("champion",), "r", "file:///x")

    def predictions(self, pixels):
        return [Prediction(CLASSES, (1 - one.mean() / 255, one.mean() / 255)) for one in pixels]


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, colour in (("night", "black"), ("snow", "white")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.setattr(command, "_load", lambda model, watcher: Brightness())
    handlers = {number: signal.getsignal(number) for number in stop.STOP_SIGNALS}
    yield tmp_path / "photos"
    for number, handler in handlers.items():
        signal.signal(number, handler)


def predict(*paths, **options):
    given = {"model": None, "top": 2, "csv": None, "copy_to": None, "as_json": False}
    command.predict(list(map(str, paths)), **{**given, **options})


def test_a_folder_is_classified(capsys):
    predict("photos")
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["class", "dark", "light"]
    assert "2 images in" in err


def test_what_cannot_be_read_is_told_the_rest_goes_on_and_the_exit_code_is_1(photos, capsys):
    (photos / "empty.png").touch()
    (photos / "notes.png").write_text("no image")
    (photos / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"3 of 5 could not be read \(named above\)") as caught:
        predict("photos", "gone\n.png", as_json=True)
    assert caught.value.exit_code == 1
    out, err = capsys.readouterr()
    assert {image["path"]: image.get("class") for image in json.loads(out)["images"]} == {
        "photos/night.png": "dark", "photos/snow.png": "light",
        "photos/empty.png": None, "photos/notes.png": None, "gone\n.png": None,
    }  # fmt: skip
    assert "warning: photos/empty.png: empty (0 bytes)\n" in err
    assert "warning: photos/notes.png: not a PNG, JPEG, WebP, BMP or GIF image\n" in err
    assert "warning: gone\\n.png: no such file or folder\n" in err
    assert "in these folders 1 file is hidden or not named like images, and left out" in err


def test_without_any_file_no_model_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_load", lambda *words: 1 / 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="nothing was classified: what is wrong with each is named above"):
        predict("empty", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["complete"]) == (None, True)
    assert found["images"] == [{"path": "empty", "error": "no images in this folder (PNG, JPEG, WebP, BMP or GIF)"}]


def test_images_are_copied_into_folders_of_their_classes_and_repeating_it_adds_nothing(photos):
    for _ in range(2):
        predict("photos", copy_to=photos / "sorted")
    found = sorted(path.relative_to(photos / "sorted").as_posix() for path in photos.glob("sorted/*/*"))
    assert found == ["dark/night.png", "light/snow.png"]


def test_json_and_csv_cannot_both_have_stdout():
    with pytest.raises(ConfigError, match="both write to stdout"):
        predict("photos", as_json=True, csv="-")


def test_a_signal_ends_it_after_a_batch_and_what_was_done_is_whole(monkeypatch, photos, capsys):
    monkeypatch.setattr(classify, "BATCH", 1)
    real = Brightness.predictions

    def predictions(self, pixels):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, pixels)

    monkeypatch.setattr(Brightness, "predictions", predictions)
    with pytest.raises(
        InterruptedRunError, match="interrupted after 1 of 2 images; what was done is written"
    ) as caught:
        predict("photos", as_json=True, csv="x.csv")
    assert caught.value.exit_code == 143
    found = json.loads(capsys.readouterr().out)
    assert (len(found["images"]), found["complete"]) == (1, False)
    assert len((photos.parent / "x.csv").read_text().splitlines()) == 2


def test_a_signal_in_the_last_batch_loses_nothing(monkeypatch, capsys):
    real = Brightness.predictions

    def predictions(self, pixels):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, pixels)

    monkeypatch.setattr(Brightness, "predictions", predictions)
    predict("photos")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_table_that_nobody_reads_any_more_ends_it(monkeypatch, capsys):
    monkeypatch.setattr(classify, "BATCH", 1)
    monkeypatch.setattr(streams, "has_reader", lambda: False)
    predict("photos")
    assert capsys.readouterr().out == "", "the first rows are of what cannot be read, and the table has none of it"
    predict("photos", csv="x.csv")
    assert len(capsys.readouterr().out.splitlines()) == 3, "a file is written to its end"


def test_a_csv_file_is_there_whole_although_something_could_not_be_read(photos):
    (photos / "empty.png").touch()
    with pytest.raises(ImageError):
        predict("photos", csv="x.csv")
    assert (photos.parent / "x.csv").read_text().count("\n") == 4
