"""The ways to train a model that `training_step.py` compares."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from measuring.ours import Precision, kernels_of, numerics, precisions
from measuring.peers import timm_network
from measuring.settings import Setting
from pipeline.config.schema import RunConfig
from pipeline.training.models import build_model
from pipeline.training.numerics import Numerics
from sequencer_models.kernels import Kernels
from sequencer_models.sequencer2d import Sequencer2D

CLASSES = 4
Kind = Literal["ours", "ours, linear by matmul", "ours, linear by convolution", "ours, eager", "timm's blocks"]


@dataclass(frozen=True)
class Variant:
    """A kind in a precision. "ours" is what `device.resolve` chooses; the others change one thing."""

    kind: Kind
    precision: Precision

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.precision}"

    @property
    def is_peer(self) -> bool:
        """Whether its network is built of timm's blocks."""
        return self.kind == "timm's blocks"

    def numerics(self, setting: Setting, config: RunConfig) -> Numerics:
        """As a run with this precision would have them."""
        return numerics(self.precision, setting, config.train.batch_size)

    def kernels(self, numerics: Numerics) -> Kernels:
        """The ways to compute of this kind."""
        chosen = kernels_of(numerics)
        if self.kind == "ours, linear by matmul":
            return Kernels(chosen.lstm, "matmul")
        if self.kind == "ours, linear by convolution":
            return Kernels(chosen.lstm, "convolution")
        if self.kind == "ours, eager":
            return Kernels("eager", chosen.linear)
        return Kernels() if self.is_peer else chosen


def variants(model: str, setting: Setting) -> list[Variant]:
    """All that are compared; the peer of vanilla is the same with `nn.LSTM`, which eager is."""
    kinds: list[Kind] = ["ours", "timm's blocks", "ours, eager"]
    kinds += ["ours, linear by matmul", "ours, linear by convolution"]
    return [
        Variant(kind, precision)
        for precision in precisions(setting)
        for kind in kinds
        if model != "vanilla" or kind in ("ours", "ours, eager")
    ]


def networks(config: RunConfig, peer: bool = True) -> tuple[nn.Module, nn.Module | None]:
    """Ours, and the same of timm's blocks with the same weights, where there is such a thing."""
    ours = build_model(config, CLASSES)
    return ours, timm_network(ours) if peer and isinstance(ours, Sequencer2D) else None
