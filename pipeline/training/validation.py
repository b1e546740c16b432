"""The validation split, on which every choice is made: loss and accuracy of a model on it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.batches import LabelledImages, Normalisation, plain_batches
from pipeline.training.numerics import Numerics


@dataclass(frozen=True)
class Validation:
    """The held-out split, and how its images reach the model."""

    split: LabelledImages
    normalise: Normalisation
    batch_size: int = 250


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    validation: Validation,
    numerics: Numerics,
    weights: dict[str, Tensor] | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy, on the validation split.

    `weights` replace the model's own.
    """
    was_training = model.training
    model.eval()
    loss_sum, correct = 0.0, 0
    for images, labels in plain_batches(validation.split, validation.normalise, validation.batch_size):
        images, labels = images.to(numerics.device), labels.to(numerics.device)
        with numerics.autocast():
            logits = torch.func.functional_call(model, weights, (images,)) if weights else model(images)
        loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
    model.train(was_training)
    return loss_sum / len(validation.split), correct / len(validation.split)
