"""A cache of verified arrays: four `.npy` files per data set, each complete or absent.

They are opened as read-only memory maps, so that processes share one copy in memory.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import Batch, Bytes, Split
from pipeline.workspace.durable_files import sync_folder, write_json, writing

RECORD = "source.json"
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Record:
    """Source, shapes and SHA-256 of the arrays in a cache folder."""

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    sha256: Mapping[str, str]


def array_path(folder: Path, array: str) -> Path:
    """The file of one array (`train_images`, `train_labels`, `test_images`, `test_labels`)."""
    return folder / f"{array}.npy"


def open_array(folder: Path, array: str) -> Bytes:
    """A read-only map of one cached array.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is not an array file.
    """
    try:
        mapped = np.load(array_path(folder, array), mmap_mode="r", allow_pickle=False)
    except EOFError as error:  # an empty file
        raise ValueError(str(error)) from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.uint8 or not mapped.flags.c_contiguous:
        raise ValueError("not a plain array of bytes")
    return mapped


def open_split(folder: Path, split: Split) -> tuple[Bytes, Bytes]:
    """Images (N x 32 x 32 x 3) and labels (N) of one split; the other split's files are not touched."""
    return open_array(folder, f"{split}_images"), open_array(folder, f"{split}_labels")


def problems(folder: Path, record: Record) -> list[str]:
    """One line for each array that is missing, damaged or altered; reads all of them."""
    found = []
    for array, sha256 in record.sha256.items():
        path = array_path(folder, array)
        try:
            mapped = open_array(folder, array)
        except FileNotFoundError:
            found.append(f"{path}: missing")
        except (OSError, ValueError) as error:
            found.append(f"{path}: damaged ({error})")
        else:
            if mapped.shape != tuple(record.shapes[array]) or sha256_of(mapped) != sha256:
                found.append(f"{path}: altered (wrong SHA-256)")
    return found


def sha256_of(array: Bytes) -> str:
    """SHA-256 of an array's bytes, read in pieces."""
    flat = array.reshape(-1)
    digest = hashlib.sha256()
    for start in range(0, flat.size, _CHUNK):
        digest.update(flat[start : start + _CHUNK].data)
    return digest.hexdigest()


def read_record(folder: Path) -> Record | None:
    """The record in a cache folder; None if it is missing or damaged."""
    try:
        content = json.loads((folder / RECORD).read_bytes())
        shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
        return Record(content["source"], shapes, dict(content["sha256"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def store(
    folder: Path,
    batches: Iterable[Batch],
    *,
    source: str,
    shapes: Mapping[str, tuple[int, ...]],
    sha256: Mapping[str, str] | None,
) -> Record:
    """Write the four arrays, and put them in place only if their hashes match `sha256` (None: accept any).

    Raises:
        SourceProblem: a hash differs; the folder is unchanged.
        WorkspaceError: the folder cannot be written.
    """
    with writing(folder), ExitStack() as stack:  # around the stack: closing a file may fail like writing to it
        folder.mkdir(parents=True, exist_ok=True)
        writers = {name: _ArrayWriter(folder, name, shape, stack) for name, shape in shapes.items()}
        for batch in batches:
            writers[f"{batch.split}_images"].append(batch.images)
            writers[f"{batch.split}_labels"].append(batch.labels)
        found = {name: writer.digest.hexdigest() for name, writer in writers.items()}
        wrong = [name for name in shapes if sha256 is not None and found[name] != sha256[name]]
        if wrong:
            raise SourceProblem(f"not CIFAR-10: wrong SHA-256 of {', '.join(wrong)}")
        record = Record(source, dict(shapes), found)
        for writer in writers.values():
            writer.publish()
        sync_folder(folder)
    write_json(folder / RECORD, {"source": source, "shapes": record.shapes, "sha256": record.sha256})
    return record


class _ArrayWriter:
    """Writes one `.npy` file under a temporary name until it is published.

    It does not map the file: on a full disk, writing to a map kills the process, while an ordinary write raises.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], stack: ExitStack) -> None:
        self.path = array_path(folder, name)
        self.beside = folder / f".{name}.partial"
        stack.callback(self.beside.unlink, missing_ok=True)
        self.file: BinaryIO = stack.enter_context(self.beside.open("wb"))
        self.digest = hashlib.sha256()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, rows: Bytes) -> None:
        content = np.ascontiguousarray(rows).data
        self.digest.update(content)
        self.file.write(content)

    def publish(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.beside.replace(self.path)
