"""The optimiser of a training: what trains which weights, at which rates, and its state by their names."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig
from pipeline.training.muon import Muon, matrices_of
from pipeline.training.numerics import Precision


class Optimizer:
    """AdamW; or Muon for the matrices of hidden layers, and AdamW for the rest.

    Weight decay is decoupled, and falls on matrices and convolutions, not on norms and biases. Frozen weights take no
    part. A group's `multiple` is its learning rate as a multiple of the schedule's.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, precision: Precision = "fp32") -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        matrices = matrices_of(model) if config.optimizer == "muon" else {}
        gates = {weight: matrices[name] for name, weight in self._weights.items() if name in matrices}
        self._adamw = _adamw([weight for weight in self._weights.values() if weight not in gates], config)
        self._muon = _muon(gates, config, precision) if gates else None
        self._parts: list[torch.optim.Optimizer] = [self._adamw, *([self._muon] if self._muon else [])]
        self._states = {weight: part.state for part in self._parts for weight in _weights_of(part)}
        self.set_learning_rate(config.learning_rate)

    def set_learning_rate(self, rate: float) -> None:
        """Of the schedule; each group has its multiple of it."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["multiple"]

    def step(self) -> None:
        """Change the weights by their gradients."""
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        """Free the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, `<weight>.<slot>`; none before the first step."""
        return {
            f"{name}.{slot}": value
            for name, weight in self._weights.items()
            for slot, value in self._states[weight].get(weight, {}).items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; checkpoints of format 1 have AdamW's numbers in place of names."""
        numbered = {str(number): weight for number, weight in enumerate(_weights_of(self._adamw))}
        for name, value in tensors.items():
            key, _, slot = name.rpartition(".")
            weight = self._weights.get(key, numbered.get(key))
            assert weight is not None, f"{key} is no weight of this model"
            self._states[weight][weight][slot] = value.to(weight.device)

    @property
    def state_bytes(self) -> int:
        """What it keeps from step to step: two averages of AdamW's, one of Muon's."""
        adamw, muon = (sum(weight.nbytes for weight in _weights_of(part)) for part in (self._adamw, self._muon))
        return 2 * adamw + muon

    @property
    def scratch_bytes(self) -> int:
        """What a step of it holds for a while, beside that."""
        return self._muon.scratch_bytes() if self._muon else 0

    @property
    def flops(self) -> int:
        """Floating point operations of a step of it in products of matrices."""
        return self._muon.flops() if self._muon else 0


def _adamw(weights: Iterable[Tensor], config: TrainConfig) -> torch.optim.AdamW:
    matrices = [weight for weight in weights if weight.ndim >= 2]
    plain = [weight for weight in weights if weight.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay, "multiple": 1.0},
            {"params": plain, "weight_decay": 0.0, "multiple": config.bias_rate_factor},
        ],
        betas=(0.9, config.adam_beta2),
        fused=True,
    )


def _muon(gates: Mapping[nn.Parameter, int], config: TrainConfig, precision: Precision) -> Muon:
    groups = [
        {
            "params": [weight for weight, count in gates.items() if count == number],
            "gates": number,
            "weight_decay": config.weight_decay,
            "multiple": config.muon_learning_rate / config.learning_rate,
        }
        for number in sorted(set(gates.values()))
    ]
    return Muon(groups, torch.bfloat16 if precision == "bf16" else torch.float32)


def _weights_of(part: torch.optim.Optimizer | None) -> list[Tensor]:
    return [weight for group in (part.param_groups if part else []) for weight in group["params"]]
