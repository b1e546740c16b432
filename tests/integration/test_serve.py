"""`seqpipe serve` on a model that the real commands have registered, asked over real connections."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from product import ONE_EPOCH, Place, leave
from running_server import serving
from served import png

from pipeline.evaluation.predictions import load_predictions


@pytest.fixture(scope="module")
def server(finished):
    with serving(finished) as server:
        yield server


@pytest.fixture
def copy(finished, tmp_path):
    """The finished workspace, to be changed."""
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    place = Place(tmp_path / "copy", mlflow=True)
    yield place
    place.end()


def test_the_test_images_have_the_probabilities_of_the_evaluation_whichever_way_they_come(finished, server):
    [prepared] = (finished.stages / "prepare").glob("*/test_images.npy")
    [predictions] = (finished.root / ".seqpipe" / "predictions").glob("*/predictions.npz")
    pixels, evaluated = np.load(prepared), load_predictions(predictions)
    files = []
    for number, one in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(one).save(file, "PNG")
        files.append(("file", (f"{number}.png", file.getvalue())))
    sent = server.client.post("/predict", files=files).json()["images"]
    assert [one["name"] for one in sent] == [f"{number}.png" for number in range(len(pixels))]
    found = [[one["probabilities"][name] for name in evaluated.class_names] for one in sent]
    np.testing.assert_allclose(found, evaluated.probabilities, atol=1e-6)
    rows = server.client.post("/invocations", json={"inputs": pixels.tolist()}).json()["predictions"]
    found = [[row[f"probability_{name}"] for name in evaluated.class_names] for row in rows]
    np.testing.assert_allclose(found, evaluated.probabilities, atol=1e-6)


def test_it_is_one_process_and_imports_no_mlflow(server):
    assert psutil.Process(server.process.pid).children(recursive=True) == []
    mapped = {path.path for path in psutil.Process(server.process.pid).memory_maps()}
    assert not [path for path in mapped if "pyarrow" in path or "pandas" in path], "mlflow's"


def test_many_at_once_are_each_answered_with_their_own(server):
    levels = [0, 60, 120, 250] * 10
    alone = {level: server.predict(png(level)).json()["images"][0]["probabilities"] for level in set(levels)}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda level: server.predict(png(level)), levels))
    for level, answer in zip(levels, answers, strict=True):
        found = answer.json()["images"][0]["probabilities"]
        assert found == pytest.approx(alone[level], abs=1e-5)


def test_what_is_no_http_and_what_breaks_off_are_no_trouble(server):
    host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
    for words in (
        b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    ):  # fmt: skip
        with socket.create_connection((host, port), 5) as connection:
            connection.sendall(words)
    assert server.predict(png()).status_code == 200


def test_a_client_that_sends_too_much_reads_the_answer(server):
    answer = server.client.post("/predict", content=b"x" * 17_000_000, headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()) == (413, {"error": "the request is larger than 16 MB"})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_requests_that_were_begun_end(finished, number, code):
    with serving(finished) as server:
        body = png(120)
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port), 30) as connection:
            connection.sendall(head.encode() + body[:10])
            time.sleep(0.3)
            server.process.send_signal(number)
            time.sleep(0.5)
            with pytest.raises(OSError):  # noqa: PT011  # refused or reset
                socket.create_connection((url.host, url.port), 1).close()
            connection.sendall(body[10:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        assert b'"probabilities"' in answer
        assert server.process.wait(timeout=10) == code
        assert server.process.stderr.read() == ""


def test_a_second_signal_ends_it_at_once(finished):
    with serving(finished) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port), 30) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert leave(server.process, signal.SIGTERM, timeout_s=10).code == 143


def test_a_new_champion_is_taken_without_a_failed_request(copy):
    second = [*ONE_EPOCH, "--set", "seed=1"]
    done = copy.run("run", "all", *second)
    assert done.code in (0, 3), done.err
    with serving(copy, "--reload-on-promotion") as server:
        first = server.model["version"]
        other = {"1": "2", "2": "1"}[first]
        answered, statuses, stop = set(), set(), threading.Event()

        def ask():
            with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
                while not stop.is_set():
                    answer = client.post("/predict", content=png(120), headers={"content-type": "image/png"})
                    statuses.add(answer.status_code)
                    answered.add(answer.json()["model"]["version"])

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            promoted = copy.run("models", "promote", other, "--why", "a test")
            end = time.monotonic() + 60
            while other not in answered and time.monotonic() < end:
                time.sleep(0.05)
            stop.set()
            for one in asking:
                one.result()
        assert promoted.code == 0, promoted.err
        assert statuses == {200}
        assert answered == {first, other}
        assert server.client.get("/version").json()["model"]["version"] == other
        done = leave(server.process, signal.SIGINT)
        assert f"now serving synthetic-airplane-automobile-bird-cat, version {other}" in done.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--model", "nothing@champion"], 2, "no model 'nothing' is registered"),
        (["--model", "@best"], 2, "has no best; aliases"),
        (["--host", "0.0.0.0"], 2, "it takes a token"),
        (["--host", "192.0.2.1", "--token-file", "/dev/null"], 2, "must have at least 16 letters"),
        (["--port", "70000"], 2, "Invalid value for '--port'"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(finished, words, code, says):
    done = finished.run("serve", "--port", "0", *words)
    assert (done.code, done.out) == (code, "")
    assert len(done.errors) == 1
    assert says in done.errors[0]


def test_before_anything_is_registered_and_with_altered_weights_it_says_what_to_do(tmp_path, copy):
    done = Place(tmp_path / "new", mlflow=True).run("serve", "--port", "0")
    assert done.code == 1
    assert "no model is registered here yet" in done.errors[0]
    [weights] = (copy.root / "mlartifacts").rglob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = copy.run("serve", "--port", "0")
    assert done.code == 1
    assert "its weights were altered since they were registered" in done.errors[0]


def test_plain_mlflow_serves_the_registered_model_with_the_same_probabilities(finished, server, tmp_path):
    files = next((finished.root / "mlartifacts").rglob("MLmodel")).parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["models", "serve", "-m", str(files), "--env-manager", "local", "--port", str(port), "--workers", "1"]
    programs = Path(sys.executable).parent
    environ = finished.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}  # it starts `uvicorn`
    with (tmp_path / "log").open("wb") as log:
        mlflow = subprocess.Popen(
            [str(programs / "mlflow"), *words],
            cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).tolist()
        url = f"http://127.0.0.1:{port}/invocations"
        theirs = ask_when_it_answers(mlflow, url, pixels).json()["predictions"]
        ours = server.client.post("/invocations", json={"inputs": pixels}).json()["predictions"]
        assert [list(row) for row in theirs] == [list(row) for row in ours]
        for one, other in zip(theirs, ours, strict=True):
            assert one.pop("class") == other.pop("class")
            assert one == pytest.approx(other, abs=1e-5)
    finally:
        if mlflow.poll() is None:
            os.killpg(mlflow.pid, signal.SIGTERM)
        mlflow.wait(timeout=60)


def ask_when_it_answers(process, url, pixels):
    end = time.monotonic() + 240
    while True:
        try:
            return httpx.post(url, json={"inputs": pixels}, timeout=60, trust_env=False)
        except httpx.TransportError:  # not there yet, or about to end, which is looked at next
            assert process.poll() is None, "it ended"
            assert time.monotonic() < end
            time.sleep(0.2)
