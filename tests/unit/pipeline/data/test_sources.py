import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_cifar10 import TinyCifar10, check_arrays, failure, take, tiny

from pipeline.data import npm_download, official_download, sources
from pipeline.data.attempts import Attempt, ProgressReporter
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


def test_the_source_folder_reads_the_workspace_if_no_folder_is_named(tmp_path, cache):
    tiny.write_binary(tmp_path / "ws" / "data")
    check_arrays(take("folder", cache, workspace=tmp_path / "ws"))
    assert "folder: no folder is named" in failure("folder", cache / "other")


def test_the_source_folder_reads_no_other_folder_than_the_named_one(tmp_path, cache):
    tiny.write_binary(tmp_path / "ws" / "data")
    assert "there is no such folder" in failure("folder", cache, tmp_path / "named", workspace=tmp_path / "ws")


def test_a_home_folder_of_an_unknown_user_is_an_error(cache):
    with pytest.raises(DataError, match="there is no such home folder"):
        take("folder", cache, Path("~nobody-of-this-name/x"))


def test_a_folder_that_cannot_be_read_is_one_of_the_places(tmp_path, cache, monkeypatch):
    def refuse(place, spec):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "find", refuse)
    assert f"folder: {tmp_path}: cannot be read: Permission denied" in failure("folder", cache, tmp_path)


def test_the_official_download_is_read_and_its_archive_removed(cache, monkeypatch):
    def download(archive: Archive, folder: Path, progress: ProgressReporter) -> Path:
        folder.mkdir(parents=True)
        (folder / archive.name).write_bytes(tiny.python_archive())
        return folder / archive.name

    monkeypatch.setattr(official_download, "official_archive", lambda: Archive("", "x.tar.gz", ""))
    monkeypatch.setattr(official_download, "download", download)
    raw = take("torchvision", cache)
    check_arrays(raw)
    assert (raw.source, raw.attempts) == ("torchvision", (Attempt("torchvision", "downloaded x.tar.gz, verified"),))
    assert sorted(path.name for path in cache.iterdir()) == ["cifar10", "lock"]


@pytest.mark.usefixtures("no_network")
def test_an_interrupted_download_is_kept_for_the_next_command(cache):
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "cifar-10-python.tar.gz.partial").write_bytes(b"x")
    failure("torchvision", cache)
    assert [path.name for path in (cache / "downloads").iterdir()] == ["cifar-10-python.tar.gz.partial"]


def test_what_a_killed_run_left_in_the_scratch_folder_is_removed(tmp_path, cache):
    (cache / "scratch" / "0").mkdir(parents=True)
    (cache / "scratch" / "0" / "test_batch").mkdir()  # would be in the way
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny.python_archive())
    check_arrays(take("folder", cache, tmp_path))
    assert not (cache / "scratch").exists()


def test_a_data_set_that_another_process_fetched_meanwhile_is_used(tmp_path, cache, monkeypatch):
    @contextmanager
    def waited(*_: object, **__: object) -> Iterator[None]:
        monkeypatch.undo()
        take("folder", cache, tiny.write_binary(tmp_path))
        yield

    monkeypatch.setattr(sources, "exclusive", waited)
    raw = take("auto", cache)
    check_arrays(raw)
    assert (raw.source, raw.attempts) == ("folder", ())


def test_progress_names_what_is_checked_and_read(tmp_path, cache):
    seen: list[str] = []

    def progress(description: str, done_bytes: int, total_bytes: int | None) -> None:
        seen.append(description)

    folder = tiny.write_binary(tmp_path)
    take("folder", cache, folder, progress=progress)
    take("auto", cache, progress=progress)
    assert seen == [f"Reading {folder}", "Checking the cached data set"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("source", ["auto", "torchvision", "npm"])
def test_without_a_source_the_advice_is_a_folder_a_network_or_synthetic_images(cache, source):
    *_, advice = failure(source, cache).splitlines()
    assert advice == (
        "Name a folder that holds cifar-10-batches-py or cifar-10-batches-bin, or connect to a network and run the "
        "command again; for a demo without the real images use the source synthetic."
    )


def test_a_damaged_record_of_synthetic_images_is_a_problem(cache):
    obtain("synthetic", folder=None, cache=cache, synthetic_spec=SyntheticSpec(3, 2))
    (cache / "synthetic" / "source.json").write_bytes(b"")
    assert verify_cache(cache) == [f"{cache / 'synthetic' / 'source.json'}: missing or damaged"]


@pytest.mark.usefixtures("no_network")
def test_valid_arrays_are_used_even_if_the_record_of_their_source_is_lost(tmp_path, cache):
    take("folder", cache, tiny.write_binary(tmp_path))
    (cache / "cifar10" / "source.json").unlink()
    raw = take("auto", cache)
    check_arrays(raw)
    assert raw.source == "cache"


@pytest.mark.usefixtures("no_network")
def test_a_source_other_than_a_folder_does_not_look_at_the_named_one(cache):
    assert "npm: the npm command is not installed" in failure("npm", cache, Path("~nobody-of-this-name/x"))
