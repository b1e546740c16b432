"""Does a trained Sequencer2D use where its tokens are? Its validation accuracy with the tokens moved.

    python benchmarks/token_order.py [--workspace FOLDER] [--model NAME@ALIAS]

The champion of a workspace (default: this one), which has no position embedding. Its tokens are moved between the
stem and the first block; the weights stay as they are. Each image of the validation split is moved in its own way.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, percent
from measuring.ours import set_up
from measuring.records import Record
from measuring.settings import Setting
from torch import Tensor

from pipeline import load_model
from pipeline.data.prepared import PreparedData
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.workspace.manifests import read_manifest
from pipeline.workspace.paths import Workspace
from sequencer_models.sequencer2d import Sequencer2D

Move = Callable[[Tensor, torch.Generator], Tensor]


def _rows(tokens: Tensor, draw: torch.Generator) -> Tensor:
    B, H, _, _ = tokens.shape
    order = torch.rand(B, H, generator=draw).argsort(dim=1)
    return tokens[torch.arange(B)[:, None], order]


def _columns(tokens: Tensor, draw: torch.Generator) -> Tensor:
    return _rows(tokens.transpose(1, 2), draw).transpose(1, 2)


def _all(tokens: Tensor, draw: torch.Generator) -> Tensor:
    B, H, W, C = tokens.shape
    return _rows(tokens.reshape(B, H * W, 1, C), draw).reshape(B, H, W, C)


MOVES: dict[str, Move] = {
    "as they are": lambda tokens, draw: tokens,
    "left and right changed": lambda tokens, draw: tokens.flip(2),
    "top and bottom changed": lambda tokens, draw: tokens.flip(1),
    "one column further, the last one first": lambda tokens, draw: tokens.roll(1, dims=2),
    "rows in any order": _rows,
    "columns in any order": _columns,
    "rows and columns in any order": lambda tokens, draw: _columns(_rows(tokens, draw), draw),
    "all tokens in any order": _all,
}
"""By what is done to the tokens (B x H x W x C)."""


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    classifier = load_model(options.model, workspace=options.workspace)
    network, card = classifier.network, classifier.card
    assert isinstance(network, Sequencer2D), "the tokens of a Sequencer2D are moved"
    prepared = _prepared(Workspace.find(options.workspace), card.data_hash)
    pixels, labels = np.array(prepared.array("validation_images")), np.array(prepared.array("validation_labels"))
    found = {}
    for name, move in MOVES.items():
        draw = torch.Generator().manual_seed(0)
        hook = network.stem.register_forward_hook(lambda _, __, tokens, move=move, draw=draw: move(tokens, draw))
        try:
            found[name] = float((classifier.probabilities(pixels).argmax(axis=1) == labels).mean())
        finally:
            hook.remove()
    return {
        "model": card.model,
        "version": str(classifier.version),
        "architecture": dict(card.architecture),
        "test_accuracy": card.accuracy,
        "images": len(labels),
        "classes": len(card.classes),
        "accuracy": found,
    }


def _prepared(workspace: Workspace, data_hash: str | None) -> PreparedData:
    for folder in sorted(workspace.stage(PREPARE).glob("*")):
        manifest = read_manifest(folder)
        if manifest is not None and manifest.result.get("data_hash") == data_hash:
            return PreparedData.model_validate({**manifest.result, "folder": folder})
    raise SystemExit(f"the data that the model was trained on is not in {workspace.root}; name its workspace")


def tables(record: Record) -> list[Table]:
    found = []
    for part in record["settings"].values():
        figures = part["figures"]
        rows = [[name, percent(accuracy, 2)] for name, accuracy in figures["accuracy"].items()]
        title = (
            f"{figures['model']} ({percent(figures['test_accuracy'], 2)} of the test images), "
            f"{figures['images']} validation images of {figures['classes']} classes"
        )
        found.append(Table(title, ["the tokens", "accuracy"], rows, [machine_in_words(part["machine"])]))
    return found


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", type=Path, default=Path(), help="where the model was trained (default: here)")
    parser.add_argument("--model", help="as `seqpipe predict` takes it (default: the champion)")


BENCHMARK = Benchmark("token_order", measure, tables, rounds=None, add_arguments=_add_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
