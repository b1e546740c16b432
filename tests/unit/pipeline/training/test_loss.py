import pytest
import torch
from torch.nn import functional as F

from pipeline.data.batch import Batch
from pipeline.training.loss import training_loss

IMAGES = torch.zeros(5, 3, 2, 2)
LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0])
BESIDE = torch.tensor([1, 1, 0, 2, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_of_a_batch_that_is_not_mixed_it_is_cross_entropy(smoothing):
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert torch.equal(training_loss(LOGITS, Batch(IMAGES, LABELS), smoothing), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_of_a_mixed_batch_each_class_counts_by_its_share(smoothing):
    shares = 0.7 * F.one_hot(LABELS, 4) + 0.3 * F.one_hot(BESIDE, 4)
    expected = F.cross_entropy(LOGITS, shares, label_smoothing=smoothing)  # torch's own loss of class shares
    torch.testing.assert_close(training_loss(LOGITS, Batch(IMAGES, LABELS, BESIDE, 0.7), smoothing), expected)
