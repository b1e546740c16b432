"""The routes of the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from pipeline.serving import explanation, replies
from pipeline.serving.batcher import Batcher
from pipeline.serving.bounds import Bounds
from pipeline.serving.champion_watch import ChampionWatch
from pipeline.serving.guard import FAULT, Guard, error_body
from pipeline.serving.intake import Intake
from pipeline.serving.metrics import Metrics
from pipeline.serving.refusal import Refusal
from pipeline.serving.request_words import EXPLAIN, INVOCATIONS, PREDICT, SUMMARY
from pipeline.serving.served_model import ServedModel

PAGE = Path(__file__).with_name("page")
PAGE_FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def build(
    model: ServedModel,
    metrics: Metrics,
    bounds: Bounds,
    *,
    token: str | None = None,
    readers: int = 1,
    watch: ChampionWatch | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> ASGIApp:
    """The application: `readers` threads decode images, one computes; `report` gets lines for whoever runs it."""
    batcher = Batcher(model.current, bounds, metrics.batch)
    intake = Intake(bounds, readers)
    metrics.queued(lambda: batcher.queued_images)

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(watch.run()) if watch is not None else None
        yield
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        await asyncio.to_thread(batcher.close)
        intake.close()

    app = FastAPI(
        title="seqpipe serve",
        version=metadata.version("seqpipe"),
        description=SUMMARY,
        docs_url=None,  # FastAPI's own takes its scripts from elsewhere
        redoc_url=None,
        lifespan=living,
    )
    _add_model_routes(app, model, batcher, intake)
    _add_other_routes(app, model, batcher, metrics)
    _add_pages(app)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Exception, _fault)
    counted = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    return Guard(app, token, metrics, counted, report)


def _add_model_routes(app: FastAPI, model: ServedModel, batcher: Batcher, intake: Intake) -> None:
    @app.post("/predict", tags=["model"], response_class=Response, **PREDICT)
    async def predict(request: Request) -> Response:
        with batcher.on_its_way() as has_arrived:
            sent = await intake.images(request)
            waiting = batcher.submit(sent.pixels)
            has_arrived()
        return replies.predictions(sent.names, await waiting)

    @app.post("/invocations", tags=["model"], response_class=Response, **INVOCATIONS)
    async def invocations(request: Request) -> Response:
        with batcher.on_its_way() as has_arrived:
            sent = await intake.images(request)
            waiting = batcher.submit(sent.pixels)
            has_arrived()
        return replies.invocations(await waiting)

    @app.post("/explain", tags=["model"], response_class=Response, **EXPLAIN)
    async def explain(request: Request) -> Response:
        sent = await intake.images(request)
        if len(sent.pixels) != 1:
            raise Refusal(400, f"one image at a time is explained, not {len(sent.pixels)}")
        [pixels] = sent.pixels
        found = await batcher.submit(explanation.covered(pixels, model.current().card.mean))
        return replies.explained(sent.names[0], pixels, found)


def _add_other_routes(app: FastAPI, model: ServedModel, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/health", tags=["server"], response_class=Response)
    @app.get("/ping", include_in_schema=False)
    async def health() -> Response:
        """Whether it can answer: 200, else 503."""
        return replies.as_json(
            {"status": "ok"} if batcher.is_alive else {"status": "stopped"}, 200 if batcher.is_alive else 503
        )

    @app.get("/version", tags=["server"], response_class=Response)
    async def version() -> Response:
        """Which model answers, its run and commit, its classes and test accuracy; and the release of seqpipe."""
        return replies.as_json({"seqpipe": app.version, "model": replies.whole_model(model.current())})

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def figures() -> Response:
        """Requests, batches, waiting images, the model and the process, for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", headers=PAGE_HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(request: Request) -> Response:
        name = request.path_params["name"]  # not an argument of the function: that would load a second pydantic
        if name not in PAGE_FILES:
            raise HTTPException(404)
        return FileResponse(PAGE / name, media_type=PAGE_FILES[name], headers=PAGE_HEADERS)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return Response(error_body(error.sentence), error.status, dict(error.headers), "application/json")


async def _fault(_: Request, error: Exception) -> Response:
    return Response(error_body(FAULT), 500, media_type="application/json")  # `Guard` reports it


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what: dict[int, Any] = {
        404: f"there is nothing at {request.url.path[:200]}: /docs lists what there is",
        405: f"{request.method[:20]} is not for {request.url.path[:200]}: /docs lists what there is",
    }
    sentence = what.get(error.status_code, str(error.detail))
    return Response(error_body(sentence), error.status_code, dict(error.headers or {}), "application/json")
