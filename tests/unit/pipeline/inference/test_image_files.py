"""Which files a command's names stand for."""

import os
from pathlib import Path

import pytest

from pipeline.inference.image_files import find_images
from pipeline.inference.prediction import Unreadable


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_files_keep_the_order_of_the_command_and_folders_that_of_their_names():
    touch("b.png", "photos/2.JPG", "photos/1.webp", "photos/more/0.gif", "photos/a.bmp", "a.png")
    found = find_images(["b.png", "photos", "a.png"])
    assert found.files == ["b.png", "photos/1.webp", "photos/2.JPG", "photos/a.bmp", "photos/more/0.gif", "a.png"]
    assert (found.unreadable, found.left_out) == ([], 0)


def test_in_a_folder_what_is_hidden_or_not_named_like_an_image_is_left_out():
    touch("photos/x.png", "photos/notes.txt", "photos/._x.png", "photos/.cache/y.png", "photos/png")
    found = find_images(["photos"])
    assert (found.files, found.left_out) == (["photos/x.png"], 3)


def test_a_file_that_was_named_is_taken_whatever_its_name():
    touch("notes.txt", ".hidden")
    assert find_images(["notes.txt", ".hidden", "missing.png"]).files == ["notes.txt", ".hidden", "missing.png"]


def test_a_folder_without_images_is_told():
    touch("photos/notes.txt", "full/sub/x.png")
    Path("empty").mkdir()
    found = find_images(["photos", "empty", "full"])
    assert found.files == ["full/sub/x.png"]
    assert [one.path for one in found.unreadable] == ["photos", "empty"]
    assert found.unreadable[0].reason == "no images in this folder (PNG, JPEG, WebP, BMP or GIF)"


def test_each_file_counts_once():
    touch("photos/x.png", "photos/sub/y.png")
    assert find_images(["photos/sub", "photos", "photos", "photos/x.png"]).files == [
        "photos/sub/y.png",
        "photos/x.png",
    ]
    assert find_images(["photos/sub", "photos", "photos"]).unreadable == []


def test_links_to_folders_are_followed_and_circles_end():
    touch("photos/x.png", "elsewhere/y.png")
    Path("photos/again").symlink_to("..")
    Path("photos/other").symlink_to(Path("elsewhere").absolute())
    found = find_images(["photos"])
    assert sorted(os.path.basename(file) for file in found.files) == ["x.png", "y.png"]  # noqa: PTH119
    assert found.unreadable == []


def test_a_broken_link_is_found_and_left_to_whoever_reads_it():
    Path("photos").mkdir()
    Path("photos/gone.png").symlink_to("nowhere")
    assert find_images(["photos"]).files == ["photos/gone.png"]


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_goes_on(monkeypatch):
    touch("photos/a/x.png", "photos/b/y.png")
    real = os.scandir

    def refuse(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images(["photos"])
    assert found.files == ["photos/b/y.png"]
    assert found.unreadable == [Unreadable("photos/a", "no permission to read it")]


def test_what_is_copied_is_not_taken_for_new_images():
    touch("photos/x.png", "photos/sorted/cat/x.png")
    assert find_images(["photos"], except_in=Path("photos/sorted")).files == ["photos/x.png"]
    assert find_images(["photos"], except_in=Path("not/there")).files == ["photos/x.png", "photos/sorted/cat/x.png"]


def test_names_that_are_not_utf8_come_through():
    name = os.fsdecode(b"photos/\xff.png")
    touch(name)
    assert find_images(["photos"]).files == [name]
