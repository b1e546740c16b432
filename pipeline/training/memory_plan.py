"""How many images a training can hold at once under a memory cap: its micro-batch.

What a step keeps for its backward pass is counted, to the byte, on a few made-up images. What it needs beside that
while it computes is a share that was measured in advance, so the answer does not depend on the load of the machine.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import MemoryCapError
from pipeline.training.numerics import Numerics
from sequencer_models import kernels
from sequencer_models.activation_checkpointing import blocks_of
from sequencer_models.bilstm2d import BiLSTM2D
from tuning.capped.run_capped import tree_memory_mb

WORKING_SHARE = 1.4
"""The peak of a step, in multiples of what it keeps for the backward pass: 0.9 to 1.3 were measured over models,
precisions and kernels at 64 images and more."""
WORKING_MB = 420.0
"""What does not grow with the images: MLflow's client, which is loaded while the training runs, and the buffers of
the libraries. 280 to 390 were measured with small; it is above the most because a command is ended at its cap."""
STATES = 8.5
"""Copies of the weights: gradients, Adam's two, a moving average, those of a checkpoint that is being written (four),
and bf16 casts."""


def micro_batch_size(
    cap_mb: float,
    batch_size: int,
    model: nn.Module,
    numerics: Numerics,
    checkpointing: bool,
    *,
    advice: str = "--max-memory-mb",
) -> int:
    """The most images at once, at most `batch_size`, that fit into `cap_mb` when this process trains `model`.

    The parts of a batch are as equal as possible. `advice` names what gives the training more memory.

    Raises:
        MemoryCapError: a single image does not fit.
    """
    weights_mb = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    held_mb = tree_memory_mb(os.getpid()) + STATES * weights_mb + WORKING_MB
    image_mb = WORKING_SHARE * kept_mb_per_image(model, numerics, checkpointing)
    fits = int((cap_mb - held_mb) / image_mb)
    if fits < 1:
        smaller = "" if checkpointing else ", or --set compute.recompute=true"
        raise MemoryCapError(
            f"{cap_mb:.0f} MB are too few: this training needs {held_mb + image_mb:.0f} MB with one image at once.\n"
            f"Give it as many ({advice}), or choose a smaller model{smaller}."
        )
    parts = -(-batch_size // min(fits, batch_size))
    return -(-batch_size // parts)


def kept_mb_per_image(model: nn.Module, numerics: Numerics, checkpointing: bool) -> float:
    """What the forward pass keeps for the backward pass, in MB per image."""
    few, more = (_kept_bytes(model, numerics, checkpointing, images) for images in (2, 4))
    return (more - few) / 2 / 1e6


def _kept_bytes(model: nn.Module, numerics: Numerics, checkpointing: bool, images: int) -> int:
    """Bytes of the storages that a forward pass of `images` saves.

    Under activation checkpointing (of blocks, or of mixers with the eager LSTM) these are the inputs of what is
    computed again, all that the largest of them saves, and what is saved outside of them.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used again
    within: list[int] = []
    inputs: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    def enter(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0].nbytes)
        within.append(-sum(kept.values()))

    def leave(_module: nn.Module, _given: object, _output: object) -> None:
        within[-1] += sum(kept.values())

    mixers = [mixer for mixer in model.modules() if isinstance(mixer, BiLSTM2D)]
    checkpointed: list[nn.Module] = []
    if checkpointing:
        checkpointed += blocks_of(model)
    elif numerics.device == "cpu" and kernels.selected().lstm == "eager":
        checkpointed += mixers
    hooks = [
        hook
        for module in checkpointed
        for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    for mixer in mixers:
        mixer.checkpoint_activations = False  # so that all that they would save is counted
    was_training = model.training
    model.train()
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
            torch.random.fork_rng(devices=[]),
        ):
            pixels = torch.zeros(images, 3, 32, 32, device=numerics.device)
            with numerics.autocast():
                logits = model(pixels)
            F.cross_entropy(logits.float(), torch.zeros(images, dtype=torch.long, device=numerics.device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
        for mixer in mixers:
            mixer.checkpoint_activations = True
    return sum(kept.values()) - sum(within) + sum(inputs) + max(within, default=0)
