"""Runs the server until a signal, and lets the requests that it has begun end."""

import logging
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from pipeline import stop

DRAIN_S = 30
"""In which requests that were begun have to end once a signal has come."""

KEPT_OPEN_S = 60
"""For which a connection without requests stays open."""


def serve(app: ASGIApp, listener: socket.socket, on_ready: Callable[[], object]) -> int:
    """Answer on a socket that listens until a signal; the exit code: 0 after Ctrl-C, else 128 + the signal's number.

    After the first signal no new connection is taken and the requests that were begun are answered; a second one ends
    them. Call it from the main thread.
    """
    for name in ("uvicorn.error", "python_multipart"):  # what is no HTTP or no form is its sender's fault
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEPT_OPEN_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config, on_ready)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of strange images: their senders are told
        server.run(sockets=[listener])
    return 0 if server.signals[:1] in ([], [signal.SIGINT]) else 128 + server.signals[0]


class _Server(uvicorn.Server):
    """uvicorn's server with our signals."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self.signals: list[int] = []
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with stop.listening(lambda number, _: self._stop(number)):
            yield

    def _stop(self, number: int) -> None:
        self.signals.append(number)
        self.should_exit, self.force_exit = True, len(self.signals) > 1
