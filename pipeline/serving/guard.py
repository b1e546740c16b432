"""Around all routes: who may ask, what is counted, and what an answer says when something is wrong."""

import hmac
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import extract_tb

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.metrics import Metrics

OPEN = frozenset({"/", "/health", "/ping", "/docs", "/openapi.json"})
"""Without a token: the page, which asks for it, what a supervisor looks at, and what is known to all."""

FAULT = "a fault in the server, of which its own output tells more"


class Guard:
    """An ASGI application around another one.

    `token` None lets everybody in. `routes` are the paths that are counted by their names. `report` gets a line about
    each fault of the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        metrics: Metrics,
        routes: frozenset[str],
        report: Callable[[str], object],
    ) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._metrics = metrics
        self._routes = routes
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"]
        try:
            if self._may_ask(path, scope):
                await self._app(scope, receive, watched_send)
            else:
                await answer(
                    watched_send,
                    401,
                    "this server asks for its token: send it as `Authorization: Bearer TOKEN`",
                    {"WWW-Authenticate": "Bearer"},
                )
        except Exception as error:  # a fault of ours: the sender hears of it, and a line here says where it is
            self._report(f"fault in {scope['method']} {path}: {_where(error)}")
            if not status:
                await answer(watched_send, 500, FAULT, {})
        finally:
            route = path if path in self._routes else "other"
            self._metrics.request(route, status, time.perf_counter() - began)

    def _may_ask(self, path: str, scope: Scope) -> bool:
        if self._token is None or path in OPEN or path.startswith("/page/"):
            return True
        for name, value in scope["headers"]:
            if name == b"authorization":
                kind, _, given = value.partition(b" ")
                return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)
        return False


async def answer(send: Send, status: int, sentence: str, headers: Mapping[str, str]) -> None:
    """Send an error as every route does."""
    body = error_body(sentence)
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def error_body(sentence: str) -> bytes:
    """What every answer is that says why there is none."""
    return json.dumps({"error": sentence}).encode()


def _where(error: Exception) -> str:
    frames = extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
