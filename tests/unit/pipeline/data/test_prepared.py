import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.prepared import PreparedData
from pipeline.errors import WorkspaceError

SHA256 = {"train_images": "1", "train_labels": "2", "test_images": "3", "test_labels": "4"}
LABELS = np.arange(4)


def prepared(folder: Path, **changes: object) -> PreparedData:
    values = {
        "dataset": "synthetic",
        "source": "synthetic",
        "class_names": ("bird", "cat"),
        "counts": {"train": {"bird": 3, "cat": 2}, "test": {"bird": 1, "cat": 4}},
        "fraction": 1.0,
        "sha256": SHA256,
        "data_hash": "5",
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    return PreparedData(folder=folder, **values | changes)


@pytest.mark.parametrize(("array", "counts"), [("test_images", True), ("test_labels", True), ("train_labels", False)])
def test_the_test_hash_depends_on_the_test_images_and_labels_only(tmp_path, array, counts):
    other = prepared(tmp_path, sha256=SHA256 | {array: "other"})
    assert (other.test_hash != prepared(tmp_path).test_hash) == counts


def test_the_test_hash_stays_as_registered_versions_have_it(tmp_path):
    content = b'{"test_images":"3","test_labels":"4"}'
    assert prepared(tmp_path).test_hash == hashlib.sha256(content).hexdigest()


def test_the_images_of_a_split_are_those_of_all_classes(tmp_path):
    assert [prepared(tmp_path).images_in(split) for split in ("train", "test")] == [5, 5]
    assert prepared(tmp_path, counts={"train": {"bird": 1, "cat": 6}}).images_in("train") == 7


def test_an_array_is_a_read_only_map_of_its_file(tmp_path):
    np.save(tmp_path / "test_ids.npy", LABELS)
    array = prepared(tmp_path, sha256={"test_ids": hashlib.sha256(LABELS.data).hexdigest()}).array("test_ids")
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "missing"), (b"", "damaged"), (b"no array", "damaged"), (LABELS + 1, "altered")]
)
def test_an_array_that_is_not_what_was_prepared_is_refused_with_advice(tmp_path, content, problem):
    path = tmp_path / "test_ids.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    data = prepared(tmp_path, sha256={"test_ids": hashlib.sha256(LABELS.data).hexdigest()})
    with pytest.raises(WorkspaceError) as caught:
        data.array("test_ids")
    assert str(caught.value) == (
        f"{path}: {problem} since it was prepared; remove the folder {tmp_path}, "
        "and the same command makes it again (trained models stay)"
    )


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "test_ids.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(WorkspaceError, match="damaged"):
        prepared(tmp_path).array("test_ids")


def test_the_contact_sheet_is_in_the_folder(tmp_path):
    assert prepared(tmp_path).contact_sheet == tmp_path / "contact_sheet.png"
