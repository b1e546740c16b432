"""How the gradient changes on its way from the last block to the first, before any training.

    python benchmarks/depth_gradients.py

Sequencer2D blocks with and without their LayerNorms and their residual path, with He's and the paper's start. A
gradient of norm 1 for each image enters behind the last block; its norm in front of the first one is given, and the
root mean square of the tokens behind the last one. Tokens of 32 images, drawn from a normal distribution.
"""

import argparse
from itertools import product
from typing import Any

import torch
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words
from measuring.ours import set_up
from measuring.records import Record
from measuring.settings import Setting
from torch import Tensor, nn

from sequencer_models import catalog, kernels
from sequencer_models.kernels import Kernels
from sequencer_models.sequencer2d import Sequencer2D, Sequencer2DBlock

BLOCKS = (4, 8, 16, 32)
"""Of one level, which has the tokens and channels of small's first (8 x 8 x 192); small itself has 4 and then 3."""
IMAGES = 32
SIDE, CHANNELS = 8, 192


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    set_up(setting)
    kernels.select(Kernels())
    found = []
    for init, has_norm, has_residual in product(("he", "paper"), (True, False), (True, False)):
        by_depth = {depth: _of(depth, init, has_norm, has_residual) for depth in BLOCKS}
        found.append({"init": init, "norm": has_norm, "residual": has_residual, "blocks": by_depth})
    return found


def _of(depth: int, init: str, has_norm: bool, has_residual: bool) -> dict[str, float]:
    torch.manual_seed(0)
    model = catalog.build("small", 4, init=init, depths=(depth, 1), drop_path=0.0)
    assert isinstance(model, Sequencer2D)
    blocks = [one for one in model.modules() if isinstance(one, Sequencer2DBlock)][:depth]
    x = tokens = torch.randn(IMAGES, SIDE, SIDE, CHANNELS, requires_grad=True)
    for block in blocks:
        tokens = _block(block, tokens, has_norm, has_residual)
    direction = torch.randn_like(tokens)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    (gradient,) = torch.autograd.grad(tokens, x, direction)
    return {
        "gradient_norm": gradient.flatten(1).norm(dim=1).mean().item(),
        "tokens_rms": tokens.detach().square().mean().sqrt().item(),
    }


def _block(block: Sequencer2DBlock, x: Tensor, has_norm: bool, has_residual: bool) -> Tensor:
    for norm, branch in ((block.norm1, block.mixer), (block.norm2, block.mlp)):
        out: Tensor = _through(branch, norm(x) if has_norm else x)
        x = x + out if has_residual else out
    return x


def _through(branch: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = branch(x)
    return out


def tables(record: Record) -> list[Table]:
    columns = ["start", "LayerNorm", "residual", *(f"{depth} blocks" for depth in BLOCKS)]
    found = []
    for part in record["settings"].values():
        for figure, title in (
            ("gradient_norm", "Norm of the gradient in front of the first block; it is 1 behind the last one"),
            ("tokens_rms", "Root mean square of the tokens behind the last block; it is 1 in front of the first one"),
        ):
            rows = [
                [
                    row["init"],
                    "yes" if row["norm"] else "no",
                    "yes" if row["residual"] else "no",
                    *(f"{row['blocks'][str(depth)][figure]:.2g}" for depth in BLOCKS),
                ]
                for row in part["figures"]
            ]
            found.append(Table(title, columns, rows, [machine_in_words(part["machine"])]))
    return found


BENCHMARK = Benchmark("depth_gradients", measure, tables, rounds=None)

if __name__ == "__main__":
    BENCHMARK.main()
