"""Servers that are not well, or are none of MLflow's: what passes is told apart from what needs the user."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.workspace.paths import Workspace

HTML = b"<html>a page\nof two lines</html>"
DENIED = b'{"error_code": "PERMISSION_DENIED", "message": "not yours\\nnor anybody else\'s"}'
NAME = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid experiment name"}'


class Answers(BaseHTTPRequestHandler):
    """Gives what the path of the address asks for: /<status>/<what>."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, what = self.path.split("/")[1:3]
        self.close_connection = True
        if what == "closes":
            self.connection.close()
            return
        if what == "sleeps":
            time.sleep(3)
            return
        body = {"page": HTML, "denied": DENIED, "name": NAME}[what]
        self.send_response(int(status))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 (their names there)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "passes", "words"),
    [
        ("500/page", True, "status 500"),
        ("503/page", True, "status 503"),
        ("429/page", True, "status 429"),
        ("200/closes", True, "broke the connection off"),
        ("200/sleeps", True, "timed out"),
        ("401/page", False, "MLFLOW_TRACKING_USERNAME"),
        ("403/page", False, "status 403"),
        ("403/denied", False, "not yours"),
        ("404/page", False, "not an MLflow server; check tracking_uri"),
        ("200/page", False, "not an MLflow server; check tracking_uri"),
        ("400/name", False, "Invalid experiment name"),
        ("https", False, "write http://"),
        ("nobody", True, "cannot be reached: Connection refused"),
    ],
)
def test_what_a_server_answers_is_understood(tmp_path, monkeypatch, address, path, passes, words):
    for name, value in {"MAX_RETRIES": "0", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    uri = {
        "https": address.replace("http", "https"),
        "nobody": "http://127.0.0.1:9",
    }.get(path, f"{address}/{path}")
    said = []
    workspace = Workspace(tmp_path)
    tracker = Tracker(mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": uri}), workspace, said.append)
    folder = workspace.stage("train") / "abc.partial"
    folder.mkdir(parents=True)
    with Journal(folder) as journal:
        journal.metrics({"train/loss": 1.0}, 1)
    assert not tracker.deliver(RunIdentity("abc-1", "a run"), "train/abc", folder)
    [problem] = said
    assert words in problem
    assert "\n" not in problem
    assert tracker.problem.passes == passes
    assert ("when the store answers again" in problem) == passes
    assert ("`seqpipe runs deliver` delivers it then" in problem) == (not passes)
