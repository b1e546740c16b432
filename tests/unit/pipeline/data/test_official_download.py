import hashlib
import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.data import official_download
from pipeline.data.attempts import SourceProblem
from pipeline.data.official_download import Archive, download

CONTENT = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; after `cut_after` bytes it hangs up, `hang_s` it waits first."""

    daemon_threads = True
    cut_after: int | None = None
    hang_s = 0.0
    ranges = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def archive(self, content: bytes = CONTENT) -> Archive:
        return Archive(f"http://127.0.0.1:{self.server_port}/x.tar.gz", "x.tar.gz", hashlib.md5(content).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        time.sleep(self.server.hang_s)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        body = CONTENT[start:]
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_the_archive_is_fetched_with_progress_to_the_last_byte(server, tmp_path):
    seen = []
    path = download(server.archive(), tmp_path / "downloads", lambda text, done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(server, tmp_path, ranges):
    server.cut_after = 300_000
    with pytest.raises(SourceProblem, match=f"broke off after 300000 of {len(CONTENT)} bytes"):
        download(server.archive(), tmp_path, lambda *_: None)
    server.cut_after, server.ranges = None, ranges

    path = download(server.archive(), tmp_path, lambda *_: None)

    assert server.asked == [None, "bytes=300000-"]
    assert path.read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_more_bytes(server, tmp_path):
    (tmp_path / "x.tar.gz.partial").write_bytes(CONTENT)
    assert download(server.archive(), tmp_path, lambda *_: None).read_bytes() == CONTENT


def test_a_complete_archive_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(CONTENT)
    download(server.archive(), tmp_path, lambda *_: None)
    assert server.asked == []


def test_another_file_than_the_published_one_is_refused_and_removed(server, tmp_path):
    with pytest.raises(SourceProblem, match=r"not the published x\.tar\.gz"):
        download(server.archive(b"something else"), tmp_path, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up_in_time(server, tmp_path, monkeypatch):
    server.hang_s = 1.0
    monkeypatch.setattr(official_download, "CONNECT_S", 0.2)
    started = time.monotonic()
    with pytest.raises(SourceProblem, match=r"unreachable: 127\.0\.0\.1.* did not answer within"):
        download(server.archive(), tmp_path, lambda *_: None)
    assert time.monotonic() - started < 0.9


def test_a_closed_port_is_unreachable_at_once(tmp_path):
    started = time.monotonic()
    with pytest.raises(SourceProblem, match=r"unreachable: 127\.0\.0\.1:9"):
        download(Archive("http://127.0.0.1:9/x", "x", ""), tmp_path, lambda *_: None)
    assert time.monotonic() - started < 5


def test_a_server_error_is_reported(server, tmp_path):
    (tmp_path / "x.tar.gz.partial").write_bytes(b"")
    server.status = 503
    with pytest.raises(SourceProblem, match="503"):
        download(server.archive(), tmp_path, lambda *_: None)


def test_the_server_has_ten_seconds_to_answer():
    assert official_download.CONNECT_S == 10
