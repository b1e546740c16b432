"""`seqpipe ui`: the MLflow UI over this workspace."""

from typing import Annotated

import typer

from pipeline.cli.console import complain, emit
from pipeline.cli.store import store_of


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("ui")(ui)


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C; ends all of its processes."""
    from pipeline.tracking import server as mlflow_server
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    settings = store_of(workspace)

    def ready(url: str) -> None:
        emit(f"MLflow UI: {url} (Ctrl-C ends it)")

    raise typer.Exit(mlflow_server.serve_ui(settings, workspace, port=port, on_ready=ready, on_note=complain))
