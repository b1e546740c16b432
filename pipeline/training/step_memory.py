"""How much memory the tensors of a training step take, as a function of the images at once.

A step makes the same tensors whatever the number of images, some of them as many times larger. So the bytes that are
alive after each of its operations are a straight line in that number: a step of a few images and one of twice as many
give the lines, and these the peak of any number. What libraries hold beside tensors is not seen.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.training.memory_forecast import Line, StepMemory
from pipeline.training.numerics import Numerics

FEW, MORE = 4, 8
"""Images of the two measured steps: enough that linear maps are computed as they are for many."""


def measure(model: nn.Module, numerics: Numerics) -> StepMemory:
    """Of a model on its device; its gradients are dropped, and nothing else changes."""
    was_training, threads = model.training, torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(1)  # of a few images, and quick on a busy machine
            training = [_live_bytes(model, numerics, images, _train) for images in (FEW, MORE)]
            validation = [_live_bytes(model, numerics, images, _validate) for images in (FEW, MORE)]
        finally:
            torch.set_num_threads(threads)
            model.train(was_training)
            model.zero_grad(set_to_none=True)
    return StepMemory(_highest(*training), _highest(*validation))


def _train(model: nn.Module, numerics: Numerics, images: int) -> None:
    model.train()
    pixels = torch.zeros(images, 3, 32, 32, device=numerics.device)
    labels = torch.zeros(images, dtype=torch.long, device=numerics.device)
    with numerics.autocast():
        logits = model(pixels).float()
    F.cross_entropy(logits, labels, label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]


def _validate(model: nn.Module, numerics: Numerics, images: int) -> None:
    model.eval()
    with torch.no_grad(), numerics.autocast():
        model(torch.zeros(images, 3, 32, 32, device=numerics.device)).float()


def _live_bytes(model: nn.Module, numerics: Numerics, images: int, step: Any) -> Sequence[int]:
    """Bytes of the live tensors, but for the weights, after each operation of a step."""
    model.zero_grad(set_to_none=True)
    live = _LiveTensors(model)
    with live:
        step(model, numerics, images)
    return live.bytes_after


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not typed
    """Counts the bytes of the storages that are alive after each operation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_after: list[int] = []
        self._live = 0
        self._known: dict[int, object] = {
            tensor.untyped_storage()._cdata: None for tensor in (*model.parameters(), *model.buffers())
        }

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.bytes_after.append(self._live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._live += storage.nbytes()
            self._known[key] = weakref.finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key: int, nbytes: int) -> None:
        self._live -= nbytes
        del self._known[key]


def _highest(few: Sequence[int], more: Sequence[int]) -> tuple[Line, ...]:
    """The lines through both measurements that are the highest somewhere from one image on.

    Where the two made other operations, which happens at sizes at which a library changes its way, only their peaks
    are compared.
    """
    if len(few) != len(more):
        few, more = [max(few)], [max(more)]
    slopes = [(b - a) / (MORE - FEW) for a, b in zip(few, more, strict=True)]
    lines = {Line((a - FEW * slope) / 1e6, slope / 1e6) for a, slope in zip(few, slopes, strict=True)}
    kept = [max(lines, key=lambda line: (line.at(1), line.mb_per_image))]
    while steeper := [line for line in lines if line.mb_per_image > kept[-1].mb_per_image]:
        kept.append(min(steeper, key=lambda line: (_overtakes_at(line, kept[-1]), -line.mb_per_image)))
    return tuple(kept)


def _overtakes_at(steeper: Line, line: Line) -> float:
    """The number of images from which on the steeper line is the higher one."""
    return (line.fixed_mb - steeper.fixed_mb) / (steeper.mb_per_image - line.mb_per_image)
