"""Images are sorted into a folder for each class, none is lost, and repeating it adds nothing."""

import errno
import shutil
from pathlib import Path

import pytest

from pipeline.errors import WorkspaceError
from pipeline.inference.copies import SortedCopies
from pipeline.inference.prediction import Classified, Prediction, Unreadable

CAT = Prediction(("cat", "dog"), (0.9, 0.1))


@pytest.fixture
def photos(tmp_path):
    for name, content in (("a/x.png", "one"), ("b/x.png", "another"), ("a/y.png", "third")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_image_is_copied_into_the_folder_of_its_class(photos):
    copies = SortedCopies(photos / "made" / "sorted")
    assert copies.add(photos / "a/x.png", "cat") == photos / "made/sorted/cat/x.png"
    copies.add(photos / "a/y.png", "dog")
    assert contents(photos / "made") == {"sorted/cat/x.png": "one", "sorted/dog/y.png": "third"}
    assert (photos / "a/x.png").read_text() == "one", "the image itself stays"


def test_another_image_of_the_same_name_gets_a_number_and_the_same_one_is_copied_once(photos):
    for _ in range(2):
        copies = SortedCopies(photos / "sorted")
        for name in ("a/x.png", "b/x.png", "a/x.png"):
            copies.add(photos / name, "cat")
    assert contents(photos / "sorted") == {"cat/x.png": "one", "cat/x (2).png": "another"}


@pytest.mark.parametrize("class_name", ["../../up", "..", ".", "/tmp", ""])
def test_a_class_cannot_lead_out_of_the_folder(photos, class_name):
    copy = SortedCopies(photos / "sorted").add(photos / "a/x.png", class_name)
    assert copy.resolve().parent.parent == photos / "sorted"


def test_what_cannot_be_read_any_more_is_told_and_the_rest_goes_on(photos):
    rows = [
        Classified(str(photos / "a/x.png"), CAT),
        Classified(str(photos / "gone.png"), CAT),
        Unreadable("z.png", "damaged"),
    ]
    assert SortedCopies(photos / "sorted").take(rows) == [
        rows[0],
        Unreadable(str(photos / "gone.png"), "no such file or folder"),
        rows[2],
    ]
    assert contents(photos / "sorted") == {"cat/x.png": "one"}


def test_a_full_disk_ends_it_in_one_line_and_leaves_no_half_of_a_copy(photos, monkeypatch):
    def full(source, target):
        Path(target).write_text("o")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WorkspaceError, match="No space left on device; free some space"):
        SortedCopies(photos / "sorted").add(photos / "a/x.png", "cat")
    assert contents(photos / "sorted") == {}


def test_a_folder_that_cannot_be_made_is_an_error(photos):
    with pytest.raises(WorkspaceError, match="cannot be written"):
        SortedCopies(photos / "a/x.png" / "sorted")
