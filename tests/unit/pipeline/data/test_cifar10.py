import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cifar10 import N, failure, tiny

from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import (
    CIFAR10,
    channels_last,
    read_binary,
    read_npm,
    read_python,
    unpickle_batch,
)


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


def test_the_table_of_checksums_is_of_the_official_size():
    assert CIFAR10.shapes["train_images"] == (50_000, 32, 32, 3)
    assert CIFAR10.shapes["test_labels"] == (10_000,)
    assert len({batch.python_md5 for batch in CIFAR10.batches} | {b.binary_md5 for b in CIFAR10.batches}) == 12


def npm_folder(folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(tiny.package)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            (folder / Path(member.name).name).write_bytes(content.read())
    return folder


@pytest.mark.parametrize(
    ("write", "read"),
    [(tiny.write_python, read_python), (tiny.write_binary, read_binary), (npm_folder, read_npm)],
    ids=["python", "binary", "npm"],
)
def test_each_form_is_read_a_file_at_a_time(tmp_path, write: Callable[[Path], Path], read):
    batches = list(read(write(tmp_path), tiny.spec))
    assert [batch.split for batch in batches] == ["train", "train", "test"]
    for name, batch in zip(tiny.names, batches, strict=True):
        np.testing.assert_array_equal(batch.images, tiny.images[name])
        np.testing.assert_array_equal(batch.labels, tiny.labels[name])


def test_pixels_that_are_channel_first_become_channels_last():
    pixels = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072)
    images = channels_last(pixels)
    assert images.shape == (2, 32, 32, 3)
    assert images.flags.c_contiguous
    assert images[1, 2, 5].tolist() == [3072 + channel * 1024 + 2 * 32 + 5 for channel in range(3)]


def test_nothing_is_read_after_the_first_faulty_file(tmp_path):
    tiny.write_python(tmp_path)
    (tmp_path / "data_batch_2").unlink()
    batches = read_python(tmp_path, tiny.spec)
    assert next(batches).split == "train"
    with pytest.raises(SourceProblem, match=r"missing: data_batch_2$"):
        next(batches)


def test_a_file_that_is_too_long_is_altered_and_not_truncated(tmp_path):
    tiny.write_binary(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(tiny.binary("test_batch") + b"x")
    with pytest.raises(SourceProblem, match=r"altered \(wrong md5\): test_batch\.bin$"):
        list(read_binary(tmp_path, tiny.spec))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    tiny.write_binary(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    (tmp_path / "test_batch.bin").mkdir()
    with pytest.raises(SourceProblem, match=r"test_batch\.bin cannot be read: Is a directory"):
        list(read_binary(tmp_path, tiny.spec))


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((N, 3071), np.uint8), "labels": [0] * N},
        {"data": np.zeros((N - 1, 3072), np.uint8), "labels": [0] * N},
        {"data": np.zeros((N, 3072), np.int64), "labels": [0] * N},
        {"data": [0], "labels": [0] * N},
    ],
)
def test_a_pickle_without_the_pixels_of_a_batch_is_refused(content):
    with pytest.raises(SourceProblem, match="data_batch_1 does not hold 10 images of 3072 bytes"):
        unpickle_batch(pickle.dumps(content, 3), tiny.spec.batches[0])


@pytest.mark.parametrize(
    "content", [{"labels": []}, {"data": np.zeros((N, 3072), np.uint8), "labels": [256]}, [], b"no pickle"]
)
def test_a_pickle_of_something_else_is_refused(content):
    content = content if isinstance(content, bytes) else pickle.dumps(content, 3)
    with pytest.raises(SourceProblem, match="data_batch_1 is not a CIFAR-10 batch"):
        unpickle_batch(content, tiny.spec.batches[0])


@pytest.mark.parametrize(
    ("size", "mode", "works"), [((1024, N), "RGB", True), ((1024, N), "L", False), ((1024, N + 1), "RGB", False)]
)
def test_a_picture_of_the_npm_package_has_a_row_for_each_image(tmp_path, size, mode, works):
    Image.new(mode, size).save(npm_folder(tmp_path) / "data_batch_1.png")
    if works:
        assert len(list(read_npm(tmp_path, tiny.spec))) == 3
    else:
        with pytest.raises(SourceProblem, match=r"data_batch_1\.png is not 10 rows of 1024 RGB pixels"):
            list(read_npm(tmp_path, tiny.spec))


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_damaged_picture_of_the_npm_package_is_a_problem_of_the_source(tmp_path, content):
    path = npm_folder(tmp_path) / "test_batch.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(SourceProblem, match="the package cannot be read"):
        list(read_npm(tmp_path, tiny.spec))


@pytest.mark.parametrize("labels", [b"no json", json.dumps([256] * 2 * N).encode(), b""])
def test_damaged_labels_of_the_npm_package_are_a_problem_of_the_source(tmp_path, labels):
    (npm_folder(tmp_path) / "train_lables.json").write_bytes(labels)
    with pytest.raises(SourceProblem, match="the package cannot be read"):
        list(read_npm(tmp_path, tiny.spec))
