"""Download the official archive, from the address that torchvision knows.

The transfer is our own, because torchvision's has no timeout, falls back to plain http when https fails, draws its
own progress bar, and starts from the first byte after an interruption.
"""

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from pipeline.data.attempts import ProgressReporter, SourceProblem
from pipeline.workspace.durable_files import writing

CONNECT_S = 10.0
STALL_S = 30.0
_CHUNK = 256 << 10


@dataclass(frozen=True)
class Archive:
    """A published file."""

    url: str
    name: str
    md5: str


def official_archive() -> Archive:
    """CIFAR-10's python archive, as torchvision knows it.

    Raises:
        SourceProblem: torchvision cannot be imported.
    """
    try:
        from pipeline.data.torchvision_import import import_torchvision

        dataset = import_torchvision().datasets.CIFAR10
    except (ImportError, RuntimeError, OSError) as error:
        raise SourceProblem(f"torchvision cannot be imported: {error}") from error
    return Archive(url=dataset.url, name=dataset.filename, md5=dataset.tgz_md5)


def download(archive: Archive, folder: Path, progress: ProgressReporter) -> Path:
    """Download the archive into `folder`, and verify its md5. An interrupted download is resumed.

    Raises:
        SourceProblem: no answer within 10 s, no data for 30 s, a server error, or not the published file.
        WorkspaceError: the folder cannot be written.
    """
    whole, partial = folder / archive.name, folder / f"{archive.name}.partial"
    if whole.exists() and _md5(whole) == archive.md5:
        return whole
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(archive.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = open_within(request, CONNECT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": nothing is left to fetch
            raise SourceProblem(f"the server answered {error.code} {error.reason}") from error
    else:
        with response:
            _receive(response, partial, have if response.status == 206 else 0, progress)
    with writing(partial):
        md5 = _md5(partial)
        if md5 != archive.md5:
            partial.unlink()
            raise SourceProblem(f"the downloaded file is not the published {archive.name} (md5 {md5}); removed")
        partial.replace(whole)
    return whole


def open_within(request: urllib.request.Request, seconds: float) -> HTTPResponse:
    """Send a request, and wait `seconds` at most for the response to start.

    A thread sends it, because looking a name up, trying each of its addresses and going through a proxy have no
    common timeout.

    Raises:
        urllib.error.HTTPError: the server refused.
        SourceProblem: the server is unreachable.
    """
    host = request.host  # a proxy's, once the request is sent
    answers: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=STALL_S))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, name="open-url", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise SourceProblem(f"unreachable: {host} did not answer within {seconds:.0f} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        raise answer
    if isinstance(answer, Exception):
        reason = answer.reason if isinstance(answer, urllib.error.URLError) else answer
        raise SourceProblem(f"unreachable: {host}: {reason}") from answer
    return answer


def _receive(response: HTTPResponse, partial: Path, done: int, progress: ProgressReporter) -> None:
    left = response.headers.get("Content-Length", "")
    total = done + int(left) if left.isdigit() else None
    with writing(partial.parent):
        partial.parent.mkdir(parents=True, exist_ok=True)
    with writing(partial), partial.open("ab" if done else "wb") as file:
        while True:
            progress("Downloading CIFAR-10", done, total)
            try:
                chunk = response.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise SourceProblem(f"the download broke off after {done} bytes: {error}") from error
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
    if total is not None and done < total:
        raise SourceProblem(f"the download broke off after {done} of {total} bytes; the same command resumes it")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
