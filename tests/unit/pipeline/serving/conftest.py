"""A server whose model is a stand-in, asked in this process."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipeline.inference.model_card import ModelCard
from pipeline.serving.app import build
from pipeline.serving.bounds import Bounds
from pipeline.serving.metrics import Metrics
from pipeline.serving.served_model import ServedModel
from pipeline.tracking.version_choice import StoredVersion

CLASSES = ("dark", "light")


class Brightness:
    """Says how light an image is; `batches` are the numbers of images that it was asked for at once."""

    def __init__(self, number: str = "1", classes: tuple[str, ...] = CLASSES) -> None:
        self.classes = classes
        self.card = ModelCard("small", {}, classes, (0.0,) * 3, (1.0,) * 3, accuracy=0.9, git_commit="c0ffee")
        self.version = StoredVersion("m", number, ("champion",), "r1", "file:///x")
        self.batches: list[int] = []

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        light = pixels.reshape(len(pixels), -1).mean(axis=1) / 255
        return np.stack([1 - light, light], axis=1).astype(np.float32)


def png(level: int = 255, size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    """A grey image as a file."""
    file = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(file, kind)
    return file.getvalue()


@pytest.fixture
def model() -> Brightness:
    return Brightness()


@pytest.fixture
def reports() -> list[str]:
    """What the server said to whoever runs it."""
    return []


@pytest.fixture
def start(model: Brightness, reports: list[str]) -> Iterator[Callable[..., TestClient]]:
    """Starts a server with other bounds, or a token."""
    started = []

    def start(token: str | None = None, **bounds: object) -> TestClient:
        app = build(
            ServedModel(model), Metrics(), replace(Bounds(), **bounds), token=token, readers=2, report=reports.append
        )
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        started.append(client)
        return client

    yield start
    for client in started:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    return start()
