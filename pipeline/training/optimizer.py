"""The optimiser of a training: which weights decay, at which rates, and its state by their names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig


class Optimizer:
    """AdamW with decoupled weight decay on matrices and convolutions, none on norms and biases.

    Frozen weights take no part. A group's `multiple` is its learning rate as a multiple of the schedule's.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        matrices = [weight for weight in self._weights.values() if weight.ndim >= 2]
        plain = [weight for weight in self._weights.values() if weight.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay, "multiple": 1.0},
                {"params": plain, "weight_decay": 0.0, "multiple": config.bias_rate_factor},
            ],
            lr=config.learning_rate,
            betas=(0.9, config.adam_beta2),
            fused=True,
        )

    def set_learning_rate(self, rate: float) -> None:
        """Of the schedule; each group has its multiple of it."""
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["multiple"]

    def step(self) -> None:
        """Change the weights by their gradients."""
        self._adamw.step()

    def zero_grad(self) -> None:
        """Free the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, `<weight>.<slot>`; none before the first step."""
        state = self._adamw.state
        return {
            f"{name}.{slot}": value
            for name, weight in self._weights.items()
            for slot, value in state.get(weight, {}).items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, value in tensors.items():
            weight, _, slot = name.rpartition(".")
            self._adamw.state[self._weights[weight]][slot] = value.to(self._weights[weight].device)
