import os
import threading
import time
from pathlib import Path

import pytest

from tuning.on_ray.checkpoint_store import CheckpointStore
from tuning.on_ray.shared_files import KEPT_S, SharedFiles


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path):
    """On the driver's node; one file takes more than one message."""
    folder = tmp_path / "there"
    folder.mkdir()
    contents = {"images": os.urandom(2_500_000), "labels": b"0123", "empty": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def store_of(files, calls):
    store = CheckpointStore("unused", files.folder)

    def read(name, offset):
        calls.append(name)
        return store.read_shared(name, offset)

    return read


def test_another_node_gets_every_file_once(cache, paths):
    files, calls = SharedFiles.of(paths, lambda: cache), []
    folder = files.fetch(store_of(files, calls))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in paths
    }
    assert calls == ["images"] * 3 + ["labels"]
    assert files.fetch(store_of(files, calls)) == folder
    assert len(calls) == 4, "the next trial finds them"
    assert [path.name for path in (cache / "inputs").iterdir()] == [files.key], "and no draft is left"


def test_other_contents_are_other_files(cache, paths):
    before = SharedFiles.of(paths, lambda: cache)
    old = before.fetch(store_of(before, []))
    paths[1].write_bytes(b"4567")
    after = SharedFiles.of(paths, lambda: cache)
    assert after.fetch(store_of(after, [])) != old
    assert (old / "labels").read_bytes() == b"0123"


@pytest.mark.parametrize("change", [b"012", b"3210", b""])
def test_a_file_that_changed_meanwhile_is_refused_and_nothing_is_kept(cache, paths, change):
    files = SharedFiles.of(paths, lambda: cache)
    paths[1].write_bytes(change)
    with pytest.raises(OSError, match="labels is not what the search started with"):
        files.fetch(store_of(files, []))
    assert list((cache / "inputs").iterdir()) == []


def test_what_was_not_used_for_long_goes_when_something_else_comes(cache, paths):
    files = SharedFiles.of(paths, lambda: cache)
    old, recent = cache / "inputs" / "old", cache / "inputs" / "recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - KEPT_S - 60))
    files.fetch(store_of(files, []))
    assert sorted(path.name for path in (cache / "inputs").iterdir()) == sorted(["recent", files.key])


def test_shared_files_are_of_one_folder(paths, tmp_path):
    (tmp_path / "elsewhere").touch()
    with pytest.raises(ValueError, match="2 folders"):
        SharedFiles.of([*paths, tmp_path / "elsewhere"])
    assert SharedFiles.of([]).files == ()


def test_what_is_fetched_follows_the_umask(cache, paths):
    files, before = SharedFiles.of(paths, lambda: cache), os.umask(0o027)
    try:
        folder = files.fetch(store_of(files, []))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_a_user_without_a_home_has_them_in_a_temporary_folder(tmp_path, paths, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    files = SharedFiles.of(paths, lambda: Path(os.devnull) / "seqpipe")
    assert files.fetch(store_of(files, [])).is_relative_to(tmp_path / "tmp" / f"seqpipe-{os.getuid()}")


def test_trials_that_start_side_by_side_get_the_files_once(cache, paths):
    files, asked = SharedFiles.of(paths, lambda: cache), []
    read = store_of(files, asked)

    def slow(name, offset):
        time.sleep(0.05)
        return read(name, offset)

    threads = [threading.Thread(target=files.fetch, args=(slow,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    alone = []
    SharedFiles.of(paths, lambda: cache.parent / "other").fetch(store_of(files, alone))
    assert len(asked) == len(alone) > 0


def test_what_a_killed_process_had_fetched_in_part_is_deleted(cache, paths):
    files = SharedFiles.of(paths, lambda: cache)
    left_over = cache / "inputs" / f".{files.key}-0123"
    left_over.mkdir(parents=True)
    files.fetch(store_of(files, []))
    assert [path.name for path in (cache / "inputs").iterdir()] == [files.key]
