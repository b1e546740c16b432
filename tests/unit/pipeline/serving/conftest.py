"""A server whose model is a stand-in, asked in this process."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from served import Brightness
from starlette.testclient import TestClient

from pipeline.serving.app import build
from pipeline.serving.bounds import Bounds
from pipeline.serving.metrics import Metrics
from pipeline.serving.served_model import ServedModel


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
