import os
import pickle
from pathlib import Path

import pytest
from tiny_cifar10 import failure, tiny

from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import CIFAR10, unpickle_batch


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
