import errno
import os
import stat

import pytest

from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import sync_folder, write_atomically, write_json, writing


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"a much longer content from before")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_while_a_file_is_replaced_reads_the_old_content_to_its_end(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"old content")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old content"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_half_way_leaves_the_old_content(tmp_path, monkeypatch, number):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)


def test_json_that_cannot_be_kept_exactly_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_is_written_to_be_read_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"loss": 0.5, "name": "a"})
    assert (tmp_path / "a.json").read_text() == '{\n "loss": 0.5,\n "name": "a"\n}\n'


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("out of luck"), "out of luck"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    ],
)
def test_an_error_says_its_reason_once_and_what_to_do(tmp_path, error, reason):
    with pytest.raises(WorkspaceError) as caught, writing(tmp_path / "a"):
        raise error
    assert str(caught.value).endswith(f"a: cannot be written: {reason}; make it writable, or work in another folder")


def test_the_refused_file_is_named(tmp_path):
    with pytest.raises(WorkspaceError) as caught, writing(tmp_path):
        (tmp_path / "missing" / "file").write_bytes(b"")
    assert str(tmp_path / "missing" / "file") in str(caught.value)


def test_of_a_file_that_is_written_under_another_name_its_own_is_said(tmp_path):
    with pytest.raises(WorkspaceError) as raised:
        write_atomically(tmp_path / "gone" / "model.txt", b"")
    assert str(raised.value).startswith(f"{tmp_path / 'gone' / 'model.txt'}: cannot be written: No such file")
    with pytest.raises(WorkspaceError) as raised, writing(tmp_path / "out"):
        (tmp_path / ".out.1.tmp" / "model.txt").write_bytes(b"")
    assert str(raised.value).startswith(f"{tmp_path / 'out'}: cannot be written: No such file")


def test_a_file_is_synced_before_it_is_renamed_and_the_folder_after_it(tmp_path, monkeypatch):
    path, synced = tmp_path / "a.json", []

    def sync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(path, b"new")
    assert synced == [(False, False), (True, True)]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    sync_folder(tmp_path)
    sync_folder(tmp_path / "missing")
