"""The layers of a model: what each gives, its parameters, its share of the arithmetic and of what training holds."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sequencer_models import kernels
from sequencer_models.flops import multiply_adds_by_layer
from sequencer_models.kernels import Kernels

FEW, MORE = 2, 4
"""Images of two passes: what the second keeps more is kept of images, and no copies of weights."""


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a model, with everything inside it."""

    name: str
    """As the model has it, such as `levels.0.blocks.1`."""
    kind: str
    output: tuple[int, ...]
    """The shape of what it gives for an image."""
    parameters: int
    multiply_adds: int
    """For an image, in the forward pass."""
    kept_bytes: int
    """What it keeps of an image for the backward pass, with the selected kernels; its weights do not count."""

    @property
    def in_words(self) -> str:
        """`levels.0.blocks.1` -> `level 1, block 2`."""
        words: list[str] = []
        for part in self.name.split("."):
            if part.isdigit() and words:
                words[-1] = f"{words[-1].removesuffix('s')} {int(part) + 1}"
            else:
                words.append(part)
        return ", ".join(words)


def summarise(model: nn.Module, depth: int) -> list[LayerSummary]:
    """The layers of a model for 32 x 32 pixels in the order in which they work; the model is left as it was.

    Down to `depth` of 1 these are the model's own parts; each more takes them apart once. Lists of layers count as
    what is in them.
    """
    layers = dict(_layers(model, "", depth))
    arithmetic = multiply_adds_by_layer(model, torch.zeros(1, 3, 32, 32))
    shapes = _shapes(model, layers)
    few, more = (_kept_bytes(model, layers, images) for images in (FEW, MORE))
    return [
        LayerSummary(
            name=name,
            kind=type(layers[name]).__name__,
            output=shapes[name],
            parameters=sum(weight.numel() for weight in layers[name].parameters()),
            multiply_adds=sum(arithmetic.get(inside, 0) for inside in layers[name].modules()),
            kept_bytes=(more[name] - few[name]) // (MORE - FEW),
        )
        for name in shapes
    ]


def _layers(module: nn.Module, above: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    for own_name, child in module.named_children():
        name = above + own_name
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _layers(child, f"{name}.", depth)
        elif depth > 1 and any(True for _ in child.children()):
            yield from _layers(child, f"{name}.", depth - 1)
        elif not isinstance(child, nn.Identity):
            yield name, child


@torch.no_grad()
def _shapes(model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """What each layer gives for an image, in the order of their first use."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        shapes.setdefault(name, tuple((output if isinstance(output, Tensor) else output[0]).shape[1:]))

    before, was_training = kernels.selected(), model.training
    kernels.select(Kernels())  # the native kernel does not call nn.LSTM
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, layer in layers.items()
    ]
    try:
        model.eval()(torch.zeros(1, 3, 32, 32))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
        kernels.select(before)
    return shapes


def _kept_bytes(model: nn.Module, layers: dict[str, nn.Module], images: int) -> Counter[str]:
    """What each layer keeps of images for the backward pass; by no name what the model keeps between them."""
    kept: Counter[str] = Counter()
    at_work = [""]
    held: dict[int, Any] = {
        tensor.untyped_storage()._cdata: None for tensor in (*model.parameters(), *model.buffers())
    }

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            held[storage._cdata] = storage  # while it lives, no other has its number
            kept[at_work[-1]] += storage.nbytes()
        return tensor

    was_training = model.training
    hooks = [hook for name, layer in layers.items() for hook in _around(layer, name, at_work)]
    try:
        model.train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.zeros(images, 3, 32, 32))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    own_lstm = [name for name, layer in layers.items() if isinstance(layer, nn.LSTM) and name not in kept]
    if len(own_lstm) == 1:  # the native kernel worked in its place
        kept[own_lstm[0]] += kept.pop("", 0)
    return kept


def _around(layer: nn.Module, name: str, at_work: list[str]) -> Iterator[Any]:
    """Hooks that have the layer's name at the end of `at_work` while it works."""
    yield layer.register_forward_pre_hook(lambda *_: at_work.append(name))
    yield layer.register_forward_hook(lambda *_: at_work.remove(name))
