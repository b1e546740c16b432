"""Exports a registered model: its files are written beside their place, checked, and moved there when all is well."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.exporting import loaders, onnx_file, pt2_file
from pipeline.exporting.check import IMAGES, Check, Probabilities, check
from pipeline.exporting.evaluation_images import EvaluationImages
from pipeline.exporting.export_card import export_card
from pipeline.exporting.formats import CARD_FILE, INT8_FILE, README_FILE, ExportFormat
from pipeline.exporting.int8_cost import Int8Cost, int8_cost
from pipeline.exporting.pixel_classifier import PixelClassifier
from pipeline.inference.classifier import Classifier
from pipeline.workspace.durable_files import sync_folder, writing


@dataclass(frozen=True)
class Export:
    """What was exported."""

    folder: Path
    checks: dict[str, Check]
    """By the name of the model's file."""
    int8: Int8Cost | None

    @property
    def in_words(self) -> Iterator[str]:
        """A line for each file of a model, and what int8 costs."""
        for name, found in self.checks.items():
            yield f"{name}: {found.in_words}"
        for line in self.int8.in_words if self.int8 is not None else ():
            yield f"{INT8_FILE}: {line}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": str(self.folder),
            "checks": {name: asdict(found) for name, found in self.checks.items()},
            "int8": self.int8.to_json() if self.int8 is not None else None,
        }


def export(
    classifier: Classifier,
    images: EvaluationImages,
    folder: Path,
    formats: Sequence[ExportFormat],
    *,
    int8: bool = False,
    threads: int = 1,
    note: Callable[[str], object] = lambda line: None,
) -> Export:
    """Write a model in some formats into a new folder, each checked on test images in the runtime it is for.

    Raises:
        ConfigError: the folder is there and not empty.
        ModelError: what was written gives other probabilities; nothing is left of it.
        WorkspaceError: the folder cannot be written; nothing is left either.
    """
    pixels = images.spread(IMAGES)
    expected = classifier.probabilities(pixels)
    model = PixelClassifier(classifier.network, classifier.card)
    card, version = classifier.card, str(classifier.version)
    about = onnx_file.metadata(card.classes, version, card.weights_sha256 or "")
    checks: dict[str, Check] = {}
    cost = None
    with _new_folder(folder) as inside:
        (inside / CARD_FILE).write_text(json.dumps(card.to_json(), indent=1) + "\n")
        for format in formats:
            note(f"writing and checking {format.file}")
            exported, runtime = _write(format, model, classifier, inside, about, threads)
            checks[format.file] = check(exported, pixels, expected, runtime)
            (inside / loaders.file_of(format)).write_text(loaders.source_of(format))
        if int8:
            note(f"writing {INT8_FILE}, and comparing it on {len(images.ids)} test images")
            whole = inside / ExportFormat.onnx.file
            onnx_file.write_int8(whole, inside / INT8_FILE)
            cost = int8_cost(whole, inside / INT8_FILE, images, card.classes, threads)
        done = Export(folder, checks, cost)
        (inside / README_FILE).write_text(export_card(card, version, formats, [*done.in_words]))
    return done


def _write(
    format: ExportFormat,
    model: PixelClassifier,
    classifier: Classifier,
    folder: Path,
    about: dict[str, str],
    threads: int,
) -> tuple[Probabilities, str]:
    """Write a model's file; what it says of images, read back, and where it says that."""
    path = folder / format.file
    match format:
        case ExportFormat.onnx:
            from pipeline.exporting.onnx_runtime import NAME, OnnxClassifier

            onnx_file.write_onnx(model, path, about)
            return OnnxClassifier(path, threads), NAME
        case ExportFormat.pt2:
            pt2_file.write_pt2(model, path, about)
            return pt2_file.Pt2Classifier(path), pt2_file.NAME
        case ExportFormat.safetensors:
            from pipeline.exporting.safetensors_file import SafetensorsClassifier, write_weights

            write_weights(classifier.network, path, about)
            return SafetensorsClassifier(path, folder / CARD_FILE), f"torch {torch.__version__}"


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name at the end of the block; after an error nothing is there."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already: remove it, or name another folder with --out")
        try:
            beside.mkdir(parents=True)
            yield beside
            for path in beside.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            beside.replace(folder)  # in the place of an empty one, too
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
