"""How many images a training may hold at once under a memory cap.

What a step keeps for its backward pass is counted, to the byte, on a few made-up images; what it needs on top while
it computes is a share of that which was measured. So the answer does not depend on what else the machine does.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import MemoryCapError
from pipeline.training.device import Numerics
from sequencer_models import backends
from sequencer_models.activation_checkpointing import blocks_of
from sequencer_models.bilstm2d import BiLSTM2D
from tuning.capped.run_capped import tree_memory_mb

WORKING_SHARE = 1.4
"""What a step holds at its peak, over what it keeps for the backward pass: measured 0.9 to 1.3 over models,
precisions and recurrences at 64 images and more."""
WORKING_MB = 420.0
"""What does not grow with the images: MLflow's client, which is loaded while the training runs, and the buffers of
the libraries. Of small, 280 to 390 were measured; a command is ended at its cap, so it is above the most."""
STATES = 8.5
"""Copies of the weights that a training comes to hold: gradients, Adam's two, a moving average, those of a checkpoint
being written (four), and bf16 casts."""


def micro_batch_size(
    cap_mb: float,
    batch_size: int,
    model: nn.Module,
    numerics: Numerics,
    recompute: bool,
    *,
    advice: str = "--max-memory-mb",
) -> int:
    """The most images at once, at most `batch_size`, with which a training of `model` in this process fits.

    It divides the batch into equal parts as far as that goes. `advice` is what gives it more memory.

    Raises:
        MemoryCapError: it does not fit with a single image.
    """
    weights_mb = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    held_mb = tree_memory_mb(os.getpid()) + STATES * weights_mb + WORKING_MB
    image_mb = WORKING_SHARE * kept_mb_per_image(model, numerics, recompute)
    fits = int((cap_mb - held_mb) / image_mb)
    if fits < 1:
        smaller = "" if recompute else ", or --set compute.recompute=true"
        raise MemoryCapError(
            f"{cap_mb:.0f} MB are too few: this training needs {held_mb + image_mb:.0f} MB with one image at once.\n"
            f"Give it as many ({advice}), or choose a smaller model{smaller}."
        )
    parts = -(-batch_size // min(fits, batch_size))
    return -(-batch_size // parts)


def kept_mb_per_image(model: nn.Module, numerics: Numerics, recompute: bool) -> float:
    """What the forward pass keeps for the backward pass, in MB for each image of a batch."""
    few, more = (_kept_bytes(model, numerics, recompute, images) for images in (2, 4))
    return (more - few) / 2 / 1e6


def _kept_bytes(model: nn.Module, numerics: Numerics, recompute: bool, images: int) -> int:
    """The storages that a forward pass of `images` saves. Where blocks, or without the kernel their mixers, are
    computed again: what their inputs hold, what the largest has of its own, and what is kept outside of them."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice
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
    again: list[nn.Module] = []
    if recompute:
        again += blocks_of(model)
    elif numerics.device == "cpu" and backends.selected().recurrence == "eager":
        again += mixers
    hooks = [
        hook
        for module in again
        for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    for mixer in mixers:
        mixer.recompute = False  # so that what they would keep is seen
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
            mixer.recompute = True
    return sum(kept.values()) - sum(within) + sum(inputs) + max(within, default=0)
