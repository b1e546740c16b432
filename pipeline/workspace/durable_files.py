"""Durable files: written under another name, synced, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import WorkspaceError

_BESIDE = ".tmp"
"""How the hidden name ends under which a file, or a folder, is written."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a `WorkspaceError` of one line, with advice."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = (
            "free some space (`seqpipe gc` says what can go) and run the same command again"
            if error.errno in (28, 122)  # ENOSPC, EDQUOT
            else "make it writable, or work in another folder"
        )
        named = Path(str(error.filename or path))
        is_beside = any(part.startswith(".") and part.endswith(_BESIDE) for part in named.parts)
        raise WorkspaceError(f"{path if is_beside else named}: cannot be written: {reason}; {advice}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by `content`, durably."""
    with writing(path), replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; then sync that file, and put it in the place of `path`.

    After an error the old file stays. Errors of the operating system pass through.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{_BESIDE}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, content: object) -> None:
    """Replace a file by readable JSON, durably."""
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network and FUSE file systems refuse; the rename itself is still atomic
        return
    finally:
        os.close(descriptor)
