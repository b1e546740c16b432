"""Find CIFAR-10 in a user's folder: which forms it holds, or what it holds instead."""

import base64
import hashlib
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from pipeline.data.attempts import SourceProblem
from pipeline.data.cifar10 import Batch, Cifar10Spec, Reader, read_binary, read_npm, read_python
from pipeline.workspace.durable_files import writing

PYTHON_FOLDER = "cifar-10-batches-py"
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_ARCHIVE = "cifar-10-python.tar.gz"
BINARY_ARCHIVE = "cifar-10-binary.tar.gz"

Form = Literal["python", "binary", "npm", "cifar-100"]
FIRST_MEMBERS = 20
"""How many members of an archive are looked at to identify it."""
_MAGIC = ((0, b"\x1f\x8b"), (0, b"BZh"), (0, b"\xfd7zXZ"), (257, b"ustar"))
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)

# No file of any form is larger; a larger member is not unpacked.
_LARGEST_MEMBER_BYTES = 64 << 20


@dataclass(frozen=True)
class Found:
    """One form of the data set on disk, and the function that reads it, given a scratch folder."""

    path: Path
    read: Callable[[Path], Iterator[Batch]]


def find(place: Path, spec: Cifar10Spec) -> list[Found]:
    """Every form of CIFAR-10 that a folder or archive seems to hold, the quickest to read first."""
    others = [] if not place.is_dir() else sorted(path for path in place.iterdir() if not path.name.startswith("."))
    folders: list[tuple[Path, str, Reader]] = [
        (path, suffix, read)
        for path in dict.fromkeys([place, place / PYTHON_FOLDER, place / BINARY_FOLDER, *others])
        for suffix, read in (("", read_python), (".bin", read_binary))
    ]
    found = [
        _in_folder(path, read, spec)
        for path, suffix, read in folders
        if any((path / f"{batch.name}{suffix}").is_file() for batch in spec.batches)
    ]
    published = (PYTHON_ARCHIVE, BINARY_ARCHIVE, spec.npm_archive)
    archives = [path for name in published if (path := place / name).is_file()]
    archives += [path for path in others if path not in archives and form_of(path, spec) not in (None, "cifar-100")]
    if place.name in published or _is_archive(place):
        archives = [place]
    return found + [_in_archive(path, spec) for path in archives if path.is_file()]


def why_nothing(place: Path, spec: Cifar10Spec) -> str:
    """Why `find` found nothing in a place, in one line."""
    if not place.exists():
        return f"{place}: there is no such folder"
    if place.is_file():
        return f"{place}: a file, but not a tar archive such as {PYTHON_ARCHIVE} or {BINARY_ARCHIVE}"
    if looks_like_cifar100(place):
        return f"{place}: this looks like CIFAR-100, which is another data set"
    for name in (PYTHON_FOLDER, BINARY_FOLDER):
        if (place / name).is_dir() or place.name == name:
            return f"{place}: all of {', '.join(batch.name for batch in spec.batches)} are missing"
    return f"{place}: holds neither {PYTHON_FOLDER} nor {BINARY_FOLDER} nor one of their archives"


def looks_like_cifar100(place: Path) -> bool:
    """Whether a folder, or its subfolder with the usual name, has the files of CIFAR-100."""
    roots = (place, place / "cifar-100-python", place / "cifar-100-binary")
    signs = (("train", "test", "meta"), ("train.bin", "test.bin"), ("fine_label_names.txt",))
    archives = ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")
    return any((place / name).is_file() for name in archives) or any(
        all((root / name).is_file() for name in sign) for root in roots for sign in signs
    )


def read_archive(path: Path, spec: Cifar10Spec, scratch: Path) -> Iterator[Batch]:
    """The batches in an archive, unpacked into a scratch folder.

    Raises:
        SourceProblem: the archive is truncated, altered, or has none of the three forms.
    """
    read: Reader
    match form_of(path, spec):
        case "cifar-100":
            raise SourceProblem(f"{path}: this looks like CIFAR-100, which is another data set")
        case "npm":
            check_integrity(path, spec)
            read, names = read_npm, _npm_names(spec)
        case "binary":
            read, names = read_binary, {f"{batch.name}.bin" for batch in spec.batches}
        case _:
            read, names = read_python, {batch.name for batch in spec.batches}
    unpack(path, names, scratch)
    try:
        yield from read(scratch, spec)
    except SourceProblem as problem:
        raise SourceProblem(str(problem).replace(str(scratch), str(path))) from problem


def form_of(path: Path, spec: Cifar10Spec) -> Form | None:
    """Which form an archive holds, by the names of its first files and not its own; None for anything else."""
    if not _is_archive(path):
        return None
    by_name: dict[str, Form] = dict.fromkeys(_npm_names(spec), "npm")
    for batch in spec.batches:
        by_name |= {batch.name: "python", f"{batch.name}.bin": "binary"}
    seen_bytes = 0
    try:
        with tarfile.open(path) as tar:
            for member in islice(tar, FIRST_MEMBERS):
                if form := by_name.get(Path(member.name).name):
                    return form
                if "cifar-100" in member.name:
                    return "cifar-100"
                seen_bytes += member.size
                if seen_bytes > _LARGEST_MEMBER_BYTES:  # reading on would decompress all of it
                    return None
    except (*_DAMAGED, OSError):  # `read_archive` reports it
        return "npm" if path.name == spec.npm_archive else None
    return None


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
    """Unpack the files with these names, wherever in the archive they are, into one folder, and nothing else.

    Raises:
        SourceProblem: the archive is truncated, or is not an archive.
        WorkspaceError: the folder cannot be written.
    """
    with writing(into):
        into.mkdir(parents=True, exist_ok=True)
        try:
            source = archive.open("rb")
        except OSError as error:
            raise SourceProblem(f"{archive} cannot be read: {error.strerror or error}") from error
        try:
            with source, tarfile.open(fileobj=source) as tar:
                for member in tar:
                    name = Path(member.name).name
                    if name not in names or not member.isfile() or member.size > _LARGEST_MEMBER_BYTES:
                        continue
                    content = tar.extractfile(member)
                    assert content is not None
                    with content, (into / name).open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the archive
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
            raise SourceProblem(f"{archive}: truncated or damaged archive ({reason})") from error


def _is_archive(path: Path) -> bool:
    """Whether a file starts like a tar archive, compressed or not."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)


def _npm_names(spec: Cifar10Spec) -> set[str]:
    return {"train_lables.json", "test_lables.json"} | {f"{batch.name}.png" for batch in spec.batches}


def _in_folder(path: Path, read: Reader, spec: Cifar10Spec) -> Found:
    return Found(path, lambda scratch: read(path, spec))


def _in_archive(path: Path, spec: Cifar10Spec) -> Found:
    return Found(path, lambda scratch: read_archive(path, spec, scratch))
