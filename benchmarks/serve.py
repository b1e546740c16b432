"""`seqpipe serve` beside `mlflow models serve`: start, memory, an image alone, many images, hours under load.

    python benchmarks/serve.py [--rounds N] [--minutes N]

small answers over loopback, to Python's own HTTP client in threads of another process than the server's; client and
server share the machine's cores, the model alone has all of them. An image alone is asked for in turn: the model in
memory, our server, MLflow's. Then clients ask as fast as they can, in turn with the model in memory, and for
`--minutes` (the claim is of 60) at 80 % of the rate that they had.
"""

import argparse
import http.client
import io
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, three_digits
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.workspaces import Place
from PIL import Image

from pipeline import load_model
from pipeline.inference.classifier import Classifier
from pipeline.serving.bounds import Bounds

SMALL = shlex.split("run all --model small --set data.source=synthetic --set data.fraction=0.1 --set train.epochs=1")
BATCH = Bounds().batch_images
STARTS = 3
ASKED_PER_ROUND = 20
BUSY_S = 4.0
BUSY_ROUNDS = 5
OWN_BATCHES = 8
LOAD = 0.8
WATCH_S = 5.0


@dataclass(frozen=True)
class Request:
    """What a client sends."""

    path: str
    kind: str
    body: bytes
    images: int


@dataclass
class Server:
    """A server that runs, and what it took to start."""

    process: "subprocess.Popen[str]"
    port: int
    start_s: float

    def resident_mb(self) -> float:
        """Of all of its processes."""
        root = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in [root, *root.children(recursive=True)]) / 1e6

    def end(self) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait()
        for child in children:
            if child.is_running():
                child.terminate()


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "place", Path(folder) / "cache")
        for path in (place.root, place.cache):
            path.mkdir()
        say("small is trained and registered")
        place.run(*SMALL)
        classifier = load_model(workspace=place.root)
        figures: dict[str, Any] = {"batch_images": BATCH}
        starters: dict[str, Callable[[], Server]] = {
            "seqpipe serve": lambda: start_ours(place),
            "mlflow models serve": lambda: start_mlflow(place, classifier),
        }
        servers = {}
        for name, starter in starters.items():
            say(f"{name} starts, {STARTS} times")
            starts = []
            for number in range(STARTS):
                server = starter()
                starts.append(server.start_s)
                if number < STARTS - 1:
                    server.end()
            servers[name] = server
            figures[name] = {"start_s": round(statistics.median(starts), 2), "idle_mb": round(server.resident_mb())}
        try:
            figures["one image"] = one_image(classifier, servers, options.rounds)
            for name, server in servers.items():
                figures[name] |= busy(name, server, classifier)
            fastest = figures["seqpipe serve"]["one image a request"]
            figures["under load"] = under_load(
                servers["seqpipe serve"], LOAD * fastest["images_per_s"], options.minutes
            )
        finally:
            for server in servers.values():
                server.end()
    return figures


def start_ours(place: Place) -> Server:
    began = time.monotonic()
    process = place.start("serve", "--port", "0", "--json", stdout=subprocess.PIPE, stderr=None)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    return _answering(process, int(url.rpartition(":")[2]), began)


def start_mlflow(place: Place, classifier: Classifier) -> Server:
    """MLflow's server over the same files, in this environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = classifier.version.source.removeprefix("file://")
    words = ["models", "serve", "-m", files, "--env-manager", "local", "--port", str(port), "--workers", "1"]
    began = time.monotonic()
    programs = Path(sys.executable).parent  # it starts `uvicorn`
    process = subprocess.Popen(
        [str(programs / "mlflow"), *words],
        cwd=place.root,
        env=place.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return _answering(process, port, began)


def _answering(process: "subprocess.Popen[str]", port: int, began: float) -> Server:
    """The server, once it says that it is well."""
    while process.poll() is None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return Server(process, port, time.monotonic() - began)
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{process.args} ended with {process.returncode}")


def request_of(name: str, count: int) -> Request:
    """So many images, as one would send them to this server: PNG files to ours, pixels in JSON to MLflow's."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    if name == "mlflow models serve":
        return Request("/invocations", "application/json", json.dumps({"inputs": pixels.tolist()}).encode(), count)
    files = [_png(one) for one in pixels]
    if count == 1:
        return Request("/predict", "image/png", files[0], 1)
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n' + file + b"\r\n"
        for file in files
    ]
    return Request("/predict", "multipart/form-data; boundary=b", b"".join(parts) + b"--b--\r\n", count)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ask(connection: http.client.HTTPConnection, request: Request) -> float:
    """Send a request and read its answer; the seconds that took."""
    began = time.perf_counter()
    connection.request("POST", request.path, request.body, {"Content-Type": request.kind})
    answer = connection.getresponse()
    content = answer.read()
    taken = time.perf_counter() - began
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {content[:200]!r}")
    return taken


def one_image(classifier: Classifier, servers: dict[str, Server], rounds: int) -> dict[str, Any]:
    """Milliseconds for an image alone, in turn: the model in memory, then each server."""
    say(f"an image alone, {rounds} rounds of {ASKED_PER_ROUND}")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    seconds: dict[str, list[float]] = {"model": [], **{name: [] for name in servers}}
    requests = {name: request_of(name, 1) for name in servers}
    for number in range(-1, rounds):
        for name in seconds:
            taken = of_model(classifier, pixels) if name == "model" else of_server(servers[name].port, requests[name])
            if number >= 0:
                seconds[name] += taken
    return {name: _spread(taken) for name, taken in seconds.items()}


def of_model(classifier: Classifier, pixels: np.ndarray) -> list[float]:
    taken = []
    for _ in range(ASKED_PER_ROUND):
        began = time.perf_counter()
        classifier.probabilities(pixels)
        taken.append(time.perf_counter() - began)
    return taken


def of_server(port: int, request: Request) -> list[float]:
    """Over a connection that is open: servers close those that are idle for some seconds."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.connect()
        return [ask(connection, request) for _ in range(ASKED_PER_ROUND)]


def own_speed(classifier: Classifier) -> float:
    """Images a second of the model alone, in batches as large as the server's."""
    pixels = np.random.default_rng(2).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    classifier.probabilities(pixels)
    began = time.perf_counter()
    for _ in range(OWN_BATCHES):
        classifier.probabilities(pixels)
    return OWN_BATCHES * BATCH / (time.perf_counter() - began)


def busy(name: str, server: Server, classifier: Classifier) -> dict[str, Any]:
    """Clients that ask as fast as they can, many with an image each and few with a batch each; the model in turn."""
    found: dict[str, Any] = {}
    for words, clients, count in (("one image a request", 96, 1), ("a batch a request", 3, BATCH)):
        say(f"{name}: {words}, {clients} clients, {BUSY_ROUNDS} times {BUSY_S:.0f} s")
        load = Load(server.port, request_of(name, count), clients)
        own, rates = [], []
        for _ in range(BUSY_ROUNDS):
            own.append(own_speed(classifier))
            load.run(BUSY_S)
            rates.append(load.rate * count)
        found[words] = {
            "clients": clients,
            "images_per_s": round(statistics.median(rates), 1),
            "model_images_per_s": round(statistics.median(own), 1),
            "share_of_model": round(
                statistics.median(rate / alone for rate, alone in zip(rates, own, strict=True)), 3
            ),
            "errors": len(load.errors),
            **_spread(load.seconds),
        }
    return found | {"busy_mb": round(server.resident_mb())}


def under_load(server: Server, images_per_s: float, minutes: float) -> dict[str, Any]:
    """Requests of one image at a steady rate: errors, and whether memory grows."""
    say(f"{images_per_s:.0f} requests a second for {minutes:g} minutes")
    load = Load(server.port, request_of("seqpipe serve", 1), 32, images_per_s)
    memory: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_S):
            memory.append(server.resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    load.run(60 * minutes)
    done.set()
    watcher.join()
    part = max(1, len(memory) // 10)
    return {
        "minutes": minutes,
        "requests": len(load.seconds),
        "errors": len(load.errors),
        "first_errors": load.errors[:5],
        "requests_per_s": round(load.rate, 1),
        **_spread(load.seconds),
        "memory_mb": {
            "second_tenth": round(statistics.mean(memory[part : 2 * part] or memory), 1) if memory else None,
            "last_tenth": round(statistics.mean(memory[-part:]), 1) if memory else None,
            "most": round(max(memory), 1) if memory else None,
        },
    }


class Load:
    """Clients that send the same request over and over; `per_s` of all of them together, or as fast as they can."""

    def __init__(self, port: int, request: Request, clients: int, per_s: float | None = None) -> None:
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.rate = 0.0
        self._port, self._request, self._clients, self._per_s = port, request, clients, per_s
        self._turns = iter(range(sys.maxsize))
        self._turn = threading.Lock()

    def run(self, seconds: float) -> None:
        began, before = time.monotonic(), len(self.seconds)
        threads = [threading.Thread(target=self._client, args=(began, began + seconds)) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.rate = (len(self.seconds) - before) / (time.monotonic() - began)

    def _client(self, began: float, end: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while time.monotonic() < end:
            if self._per_s is not None:
                with self._turn:
                    due = began + next(self._turns) / self._per_s
                if due >= end:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.seconds.append(ask(connection, self._request))
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                self.errors.append(f"{type(error).__name__}: {error}"[:200])
                connection.close()
        connection.close()


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"median_ms": round(1000 * cuts[49], 2), "p99_ms": round(1000 * cuts[98], 2), "asked": len(seconds)}


def tables(record: Record) -> list[Table]:
    rows, notes = [], []
    for part in record["settings"].values():
        found = part["figures"]
        alone = found["one image"]
        for name in ("seqpipe serve", "mlflow models serve"):
            one = found[name]
            rows.append([
                name, f"{one['start_s']:.1f} s", f"{one['idle_mb']} / {one['busy_mb']} MB",
                f"{three_digits(alone[name]['median_ms'])} / {three_digits(alone[name]['p99_ms'])} ms",
                *(_share(one[words]) for words in ("one image a request", "a batch a request")),
            ])  # fmt: skip
        model = alone["model"]
        bound = 2 * model["median_ms"] + 5
        notes.append(
            f"The model alone: {three_digits(model['median_ms'])} ms for an image "
            f"(99 %: {three_digits(model['p99_ms'])}), "
            f"{found['seqpipe serve']['a batch a request']['model_images_per_s']:.0f} images/s in batches of "
            f"{found['batch_images']}. Twice its time and 5 ms: {three_digits(bound)} ms."
        )
        load = found["under load"]
        memory = load["memory_mb"]
        notes.append(
            f"{load['minutes']:g} minutes at {load['requests_per_s']:.0f} requests a second: {load['requests']} "
            f"answered, {load['errors']} errors, 99 % within {three_digits(load['p99_ms'])} ms; memory "
            f"{memory['second_tenth']} MB in the second tenth of the time, {memory['last_tenth']} MB in the last."
        )
        notes.append(machine_in_words(part["machine"]))
    columns = [
        "", "start", "memory, idle / busy", "an image alone, median / 99 %", "96 clients, an image each",
        f"3 clients, {BATCH} images each",
    ]  # fmt: skip
    return [Table("Serving small over loopback, fp32", columns, rows, notes)]


def _share(one: dict[str, Any]) -> str:
    errors = f", {one['errors']} errors" if one["errors"] else ""
    return f"{one['images_per_s']:.0f} images/s ({100 * one['share_of_model']:.0f} % of the model's own{errors})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=1, help="under a steady load at the end; the claim is of 60")


BENCHMARK = Benchmark("serve", measure, tables, add_arguments=add_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
