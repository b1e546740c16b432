"""AdamW, the learning rate as a function of the step, and a moving average of the weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices and convolutions, none on norms and biases."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    plain = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        fused=True,
    )


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total_steps`.

    one_cycle (Smith and Topin 2017) rises along a half cosine from 1/25 of the peak and falls along another one to
    about 0; cosine rises linearly and falls the same way; constant stays at the peak.
    """
    peak = config.learning_rate
    if config.schedule == "constant":
        return peak
    warmup = config.warmup_fraction * total_steps
    if step < warmup:
        if config.schedule == "cosine":
            return peak * (step + 1) / (warmup + 1)
        start = peak / 25
        return start + (peak - start) * (1 - math.cos(math.pi * step / warmup)) / 2
    progress = (step - warmup) / max(1.0, total_steps - warmup)
    return peak * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class MovingAverage:
    """An exponential moving average of a model's weights.

    In the first steps it decays faster, (1 + step) / (10 + step), so that it forgets the weights it started from.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over kept averages."""
        for name, value in weights.items():
            self.weights[name].copy_(value)
