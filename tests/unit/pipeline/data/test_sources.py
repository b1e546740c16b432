import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_cifar10 import TinyCifar10, check_arrays, failure, take, tiny

from pipeline.data import npm_download, official_download
from pipeline.data.official_download import Archive
from pipeline.data.sources import obtain, verify_cache
from pipeline.data.synthetic import SyntheticSpec
from pipeline.errors import DataError, WorkspaceError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official host is a closed port; npm is not installed."""
    archive = Archive("http://127.0.0.1:9/cifar-10-python.tar.gz", "cifar-10-python.tar.gz", "0" * 32)
    monkeypatch.setattr(official_download, "official_archive", lambda: archive)
    monkeypatch.setattr(npm_download.shutil, "which", lambda name: None)


def test_arrays_that_are_not_cifar10_never_reach_the_cache(tmp_path, cache):
    """Each file is as published, but not where it belongs."""
    other = TinyCifar10()
    folder = other.write_binary(tmp_path)
    (folder / "data_batch_1.bin").write_bytes(other.binary("data_batch_2"))
    first, second, test = other.spec.batches
    batches = (type(first)(**{**vars(first), "binary_md5": second.binary_md5}), second, test)
    spec = type(other.spec)(**{**vars(other.spec), "batches": batches})

    with pytest.raises(DataError, match="not CIFAR-10: wrong SHA-256 of train_images, train_labels"):
        obtain("folder", folder=folder, cache=cache, spec=spec)
    assert not list(cache.rglob("*.npy*"))


@pytest.mark.usefixtures("no_network")
def test_auto_lists_every_source_it_tried_and_never_uses_synthetic_data(tmp_path, cache):
    message = failure("auto", cache, tmp_path / "named", workspace=tmp_path / "ws")

    lines = message.splitlines()
    assert lines[0] == "could not get CIFAR-10 (source: auto); tried:"
    assert lines[1].startswith(f"  folder: {tmp_path / 'named'}: there is no such folder")
    assert f"  folder: {tmp_path / 'ws' / 'data'}: there is no such folder" in lines
    assert any(line.startswith("  torchvision: unreachable: 127.0.0.1:9:") for line in lines)
    assert any(line.startswith("  npm: the npm command is not installed") for line in lines)
    assert not any(line.startswith("  synthetic") for line in lines)
    assert not list(cache.rglob("*.npy"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("where", ["data/cifar-10-batches-bin", "data", "cifar-10-batches-bin"])
def test_auto_finds_the_data_set_in_the_workspace(tmp_path, cache, where):
    tiny.write_binary(tmp_path / where)
    raw = take("auto", cache, workspace=tmp_path)
    check_arrays(raw)
    assert [attempt.source for attempt in raw.attempts] == ["folder"]


@pytest.mark.usefixtures("no_network")
def test_auto_skips_a_damaged_folder_for_a_valid_one(tmp_path, cache):
    (tiny.write_python(tmp_path / "cifar-10-batches-py") / "test_batch").unlink()
    tiny.write_binary(tmp_path / "cifar-10-batches-bin")
    check_arrays(take("auto", cache, tmp_path))


@pytest.mark.usefixtures("no_network")
def test_a_second_call_needs_neither_network_nor_folder(tmp_path, cache):
    folder = tiny.write_binary(tmp_path / "there")
    take("folder", cache, folder)
    shutil.rmtree(folder)

    raw = take("auto", cache)

    check_arrays(raw)
    assert raw.source == "folder"
    assert [attempt.lines() for attempt in raw.attempts] == [[f"cache: {cache / 'cifar10'}: verified"]]


def test_a_named_folder_is_checked_even_if_the_cache_is_whole(tmp_path, cache):
    folder = tiny.write_binary(tmp_path / "there")
    take("folder", cache, folder)
    (folder / "test_batch.bin").unlink()
    assert "missing: test_batch.bin" in failure("folder", cache, folder)
    assert verify_cache(cache, tiny.spec) == []


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, Path.unlink, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 133)],
    ids=["flipped", "deleted", "emptied", "truncated"],
)
@pytest.mark.parametrize("array", ["train_images", "test_labels"])
def test_a_damaged_cache_is_noticed_and_remade(tmp_path, cache, damage, array):
    folder = tiny.write_binary(tmp_path / "there")
    take("folder", cache, folder)
    path = cache / "cifar10" / f"{array}.npy"
    damage(path)

    problems = verify_cache(cache, tiny.spec)
    raw = take("auto", cache, folder)

    assert [problem.startswith(str(path)) for problem in problems] == [True]
    check_arrays(raw)
    assert raw.attempts[0].source == "cache"
    assert str(path) in raw.attempts[0].outcome
    assert verify_cache(cache, tiny.spec) == []


@pytest.fixture
def files_cannot_grow() -> Iterator[None]:
    """Writing past 20 kB fails like writing to a full disk: at the write, and at the close that flushes again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_a_workspace_error_and_leaves_no_pieces(tmp_path, cache, request):
    folder = tiny.write_binary(tmp_path)
    request.getfixturevalue("files_cannot_grow")
    with pytest.raises(WorkspaceError, match="cannot be written: File too large"):
        take("folder", cache, folder)
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]


def test_a_cache_that_cannot_be_made_is_a_workspace_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        take("folder", tmp_path / "file" / "data", tiny.write_binary(tmp_path))


@pytest.mark.usefixtures("no_network")
def test_home_may_be_unset(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("HOME")
    assert "tried:" in failure("auto", cache, workspace=tmp_path)


def test_synthetic_has_its_own_name_and_files_and_no_cifar10_beside_it(cache):
    raw = obtain("synthetic", folder=None, cache=cache, synthetic_spec=SyntheticSpec(3, 2))
    assert (raw.name, raw.source, raw.train_images.shape) == ("synthetic", "synthetic", (30, 32, 32, 3))
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["synthetic"]
    assert verify_cache(cache) == []
    flip_a_byte(cache / "synthetic" / "test_images.npy")
    assert len(verify_cache(cache)) == 1


def test_verify_cache_finds_no_problem_without_a_cache(tmp_path):
    assert verify_cache(tmp_path / "data") == []
