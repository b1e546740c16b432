"""`seqpipe models export`: a registered model as files that work without seqpipe."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json, short_path, watching
from pipeline.cli.store import store_of
from pipeline.exporting.formats import ExportFormat


def add_to(models: typer.Typer) -> None:
    """Add the command to `models`."""
    models.command("export", epilog="Example: seqpipe models export champion --format onnx --int8 --out cats")(export)


def export(
    version: options.VersionWord = "champion",
    format: Annotated[
        list[ExportFormat] | None,
        typer.Option("--format", "-f", help="Which; repeat it for several. Default: onnx.", show_default=False),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also an ONNX file with 8-bit weights, and what it costs and gains.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder. Default: NAME-NUMBER, here.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Export a version with its card and a loader of ten lines, checked on 1000 test images.

    What differs from seqpipe's own probabilities by more than 1e-4 is refused.
    """
    from pipeline.errors import ConfigError
    from pipeline.exporting.evaluation_images import evaluation_images
    from pipeline.exporting.export import export as write
    from pipeline.inference.loading import load
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.version_choice import VersionChoice
    from pipeline.training.resolve_numerics import available_cores
    from pipeline.workspace.paths import Workspace

    formats = [*dict.fromkeys(format or [ExportFormat.onnx])]
    if int8 and ExportFormat.onnx not in formats:
        raise ConfigError("--int8 is made from the ONNX file: add --format onnx")
    workspace = Workspace.find()
    connection = StoreConnection(store_of(workspace), workspace, complain)
    classifier = load(VersionChoice.parse(version), connection, threads=None)
    images = evaluation_images(classifier.card, workspace)
    folder = out or Path(f"{classifier.version.name}-{classifier.version.number}")
    with watching() as watcher:
        done = write(classifier, images, folder, formats, int8=int8, threads=available_cores(), note=watcher.note)
    if as_json:
        emit_json(done.to_json())
        return
    for line in done.in_words:
        emit(line)
    emit(f"{classifier.version} is in {short_path(done.folder)}")
