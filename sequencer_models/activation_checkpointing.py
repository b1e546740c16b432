"""Activation checkpointing: only the inputs of blocks are kept for the backward pass (Chen et al. 2016)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """Blocks one after the other; the backward pass may compute them again, one at a time."""

    checkpoint_activations = False

    def forward(self, x: Tensor) -> Tensor:
        """Through every block."""
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if self._checkpoints() else block(x)
        return x

    def _checkpoints(self) -> bool:
        return self.checkpoint_activations and torch.is_grad_enabled()


def checkpoint_activations(model: nn.Module, enabled: bool) -> None:
    """Turn it on or off for all blocks of a model."""
    for blocks in model.modules():
        if isinstance(blocks, Blocks):
            blocks.checkpoint_activations = enabled


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Every block that would be computed again; none for a model without blocks."""
    return [block for blocks in model.modules() if isinstance(blocks, Blocks) for block in blocks]
