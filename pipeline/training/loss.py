"""The loss that a training minimises."""

from torch import Tensor
from torch.nn import functional as F

from pipeline.data.batch import Batch


def training_loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of B x classes logits, in nats; where two classes are in an image, each by its share."""
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    if batch.labels_beside is None:
        return loss
    beside = F.cross_entropy(logits, batch.labels_beside, label_smoothing=label_smoothing)
    return batch.share * loss + (1 - batch.share) * beside
