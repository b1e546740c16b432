import numpy as np
import pytest

from pipeline.data import array_cache
from pipeline.data.array_cache import Record, problems, read_record, sha256_of, store
from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import Batch, array_shapes

RNG = np.random.default_rng(1)
FIRST, SECOND, TEST = (
    Batch(split, RNG.integers(0, 256, (2, 32, 32, 3), np.uint8), np.array(labels, np.uint8))
    for split, labels in (("train", [3, 1]), ("train", [4, 1]), ("test", [5, 9]))
)
BATCHES = (FIRST, SECOND, TEST)
SHAPES = array_shapes(4, 2)


def stored(folder, batches=BATCHES, sha256=None) -> Record:
    return store(folder, batches, source="npm", shapes=SHAPES, sha256=sha256)


def test_stored_arrays_are_the_batches_of_each_split_in_order(tmp_path):
    stored(tmp_path)
    images, labels = array_cache.open_split(tmp_path, "train")
    np.testing.assert_array_equal(images, np.concatenate([FIRST.images, SECOND.images]))
    np.testing.assert_array_equal(labels, np.concatenate([FIRST.labels, SECOND.labels]))
    np.testing.assert_array_equal(array_cache.open_array(tmp_path, "test_images"), TEST.images)


def test_an_opened_array_is_a_read_only_map(tmp_path):
    stored(tmp_path)
    images = array_cache.open_array(tmp_path, "train_images")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_a_split_opens_without_the_files_of_the_other(tmp_path):
    stored(tmp_path)
    for path in tmp_path.glob("test_*"):
        path.unlink()
    images, labels = array_cache.open_split(tmp_path, "train")
    assert (len(images), len(labels)) == (4, 4)
    with pytest.raises(FileNotFoundError):
        array_cache.open_split(tmp_path, "test")


def test_the_record_says_source_shapes_and_hashes(tmp_path):
    record = stored(tmp_path)
    assert read_record(tmp_path) == record
    assert (record.source, record.shapes) == ("npm", SHAPES)
    assert record.sha256["test_labels"] == sha256_of(TEST.labels)
    assert problems(tmp_path, record) == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'{"source": "npm", "shapes": [], "sha256": {}}'])
def test_a_missing_or_damaged_record_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / array_cache.RECORD).write_bytes(content)
    assert read_record(tmp_path) is None


def test_arrays_with_other_hashes_leave_the_folder_as_it_was(tmp_path):
    record = stored(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SourceProblem, match=r"not CIFAR-10: wrong SHA-256 of train_images, train_labels$"):
        stored(tmp_path, (SECOND, FIRST, TEST), record.sha256)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_source_that_breaks_off_leaves_nothing(tmp_path):
    def broken():
        yield FIRST
        raise SourceProblem("truncated")

    with pytest.raises(SourceProblem, match="truncated"):
        stored(tmp_path / "cache", broken())
    assert list((tmp_path / "cache").iterdir()) == []


def test_each_problem_names_the_file_and_the_fault(tmp_path):
    record = stored(tmp_path)
    array_cache.array_path(tmp_path, "train_images").unlink()
    array_cache.array_path(tmp_path, "train_labels").write_bytes(b"")
    np.save(array_cache.array_path(tmp_path, "test_images"), TEST.images.reshape(4, -1))  # the same bytes
    np.save(array_cache.array_path(tmp_path, "test_labels"), TEST.labels + np.uint8(1))
    missing, damaged, other_shape, altered = problems(tmp_path, record)
    assert missing == f"{tmp_path}/train_images.npy: missing"
    assert damaged.startswith(f"{tmp_path}/train_labels.npy: damaged (")
    assert other_shape == f"{tmp_path}/test_images.npy: altered (wrong SHA-256)"
    assert altered == f"{tmp_path}/test_labels.npy: altered (wrong SHA-256)"


@pytest.mark.parametrize(
    "array", [np.zeros(4, np.int64), np.asfortranarray(np.zeros((2, 3), np.uint8)), np.array([None])],
    ids=["other type", "other order", "objects"],
)  # fmt: skip
def test_only_plain_arrays_of_bytes_are_opened(tmp_path, array):
    np.save(array_cache.array_path(tmp_path, "test_labels"), array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a plain array of bytes|object"):
        array_cache.open_array(tmp_path, "test_labels")


def test_the_hash_of_an_array_is_that_of_its_bytes_however_many_pieces(monkeypatch):
    whole = sha256_of(FIRST.images)
    monkeypatch.setattr(array_cache, "_CHUNK", 1000)
    assert sha256_of(FIRST.images) == whole
