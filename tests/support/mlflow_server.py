"""A real `mlflow server`, and a way to it that breaks off at a chosen request."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

START_S = 600
"""On a machine that is busy a server takes minutes."""
Break = Literal["unheard", "unanswered"]
"""The server never gets the request, or does what it says and its answer is lost."""


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """Run a server with its files in the folder; yields its port on 127.0.0.1."""
    port = free_port()
    words = ["-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    words += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    environ = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, *words], env=environ, cwd=folder, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not _answers(port):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class BreakingProxy:
    """Forwards to a server, until a request comes that it is to break off at; then nobody answers at its port."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = free_port()
        self.requests: list[str] = []
        """Every request that came: `POST /api/...`."""
        self._at, self._comes = "", 0
        self._how: Break = "unheard"
        self._server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_broken(self) -> bool:
        """Whether it has broken off."""
        return self._server is None

    def open(self, at: str = "", how: Break = "unheard", comes: int = 1) -> None:
        """Forward, until a request that contains `at` comes for the so-manieth time; without it for good."""
        self.close()
        self._at, self._how, self._comes = at, how, comes
        self.requests.clear()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def breaks(self, request: str) -> Break | None:
        """Whether and how it breaks off at a request."""
        self.requests.append(request)
        if self.is_broken:
            return "unheard"
        if not self._at or self._at not in request:
            return None
        self._comes -= 1
        return self._how if self._comes == 0 else None


class _Handler(BaseHTTPRequestHandler):
    proxy: BreakingProxy

    def _forward(self) -> None:
        how = self.proxy.breaks(f"{self.command} {self.path}")
        body = self._body()
        if how == "unheard":
            self.proxy.close()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.to, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _OF_ONE_HOP}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if how == "unanswered":
            self.proxy.close()
            return
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in _OF_ONE_HOP:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method of the request
            return self._forward
        raise AttributeError(name)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, *_: object) -> None:
        pass


_OF_ONE_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive", "accept-encoding"}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
