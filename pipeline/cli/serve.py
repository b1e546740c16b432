"""`seqpipe serve`: a registered model answers over HTTP, to programs and to people."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import collector
from pipeline.cli import options
from pipeline.cli.console import complain, emit
from pipeline.cli.store import store_of
from pipeline.percent import percent

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from pipeline.inference.classifier import Classifier
    from pipeline.serving.champion_watch import Registry


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(
        "serve", epilog="Example: seqpipe serve --port 8000, then curl -F file=@cat.png 127.0.0.1:8000/predict"
    )(serve)


def serve(
    model: options.RegisteredVersion = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; beyond this machine it takes a token.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A file with the token that requests have to bring; or set SEQPIPE_SERVE_TOKEN.",
            show_default=False,
        ),
    ] = None,
    reload_on_promotion: Annotated[
        bool,
        typer.Option("--reload-on-promotion", help="Serve a new champion as soon as there is one, between requests."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the address and the model as one line of JSON, when it answers.")
    ] = False,
) -> None:
    """Serve a registered model over HTTP, by default the champion, until Ctrl-C.

    POST /predict takes image files, base64 in JSON, and the formats of MLflow's server.

    / is a page to drop images on, /docs describes the interface. A signal lets requests that were begun end.
    """
    from pipeline.listening import listen
    from pipeline.serving.token import token_for

    token = token_for(host, token_file, os.environ)
    with listen(host, port) as listener:  # before the model is loaded: a port in use is told at once
        address, port = listener.getsockname()[:2]
        with collector.paused():
            from pipeline.serving import run

            classifier, registry = _load(model)
            app = _app(classifier, registry if reload_on_promotion else None, token)

        def ready() -> None:
            _tell(f"http://{f'[{address}]' if ':' in address else address}:{port}", classifier, as_json=as_json)

        raise typer.Exit(run.serve(app, listener, ready))


def _load(model: str | None) -> "tuple[Classifier, Registry]":
    """Load the version that was chosen; with it, where it comes from."""
    from pipeline.inference.loading import load
    from pipeline.serving.champion_watch import Registry
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.version_choice import VersionChoice
    from pipeline.workspace.paths import Workspace

    choice = VersionChoice.parse(model) if model is not None else VersionChoice()
    workspace = Workspace.find()
    connection = StoreConnection(store_of(workspace), workspace, complain)
    classifier = load(choice, connection, threads=None)
    return classifier, Registry(replace(choice, name=classifier.version.name), connection)


def _app(classifier: "Classifier", registry: "Registry | None", token: str | None) -> "ASGIApp":
    """What answers requests. With a registry, it takes new champions from there."""
    from pipeline.serving.allocation import settle
    from pipeline.serving.app import build
    from pipeline.serving.bounds import Bounds
    from pipeline.serving.champion_watch import ChampionWatch
    from pipeline.serving.metrics import Metrics
    from pipeline.serving.served_model import ServedModel
    from pipeline.training.resolve_numerics import available_cores

    metrics = Metrics()
    served = ServedModel(classifier, told=lambda one: metrics.model(one.version))
    watch = None if registry is None else ChampionWatch(registry, served, metrics, complain)
    settle()
    return build(served, metrics, Bounds(), token=token, readers=available_cores(), watch=watch, report=complain)


def _tell(url: str, classifier: "Classifier", *, as_json: bool) -> None:
    """Say where the server answers, and with what."""
    import sys

    if as_json:
        import json

        from pipeline.serving.replies import whole_model

        emit(json.dumps({"url": url, "pid": os.getpid(), "model": whole_model(classifier)}))
    else:
        accuracy = "" if classifier.card.accuracy is None else f", test accuracy {percent(classifier.card.accuracy)}"
        emit(f"serving {classifier.card.model} of {classifier.version}{accuracy}: {url} (Ctrl-C ends it)")
    sys.stdout.flush()
