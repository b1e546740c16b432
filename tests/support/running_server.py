"""A server that the real command has started, and one that its children may not outlive."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen
from typing import Any

import httpx
from product import Place


@dataclass
class Server:
    """It answers at `url`; `model` is what it said of its model."""

    process: "Popen[str]"
    url: str
    model: dict[str, Any]
    client: httpx.Client

    def predict(self, image: bytes) -> httpx.Response:
        return self.client.post("/predict", content=image, headers={"content-type": "image/png"})


@contextmanager
def serving(place: Place, *words: str) -> Iterator[Server]:
    """`seqpipe serve` on any free port, until the end of the block."""
    process = place.start("serve", "--port", "0", "--json", *words)
    alarm = threading.Timer(120, process.kill)
    alarm.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        alarm.cancel()
        assert line, process.stderr.read() if process.stderr else ""
        said = json.loads(line)
        with httpx.Client(base_url=said["url"], timeout=60, trust_env=False) as client:
            yield Server(process, said["url"], said["model"], client)
    finally:
        alarm.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
