import pytest
import torch

from pipeline.data.batch import Batch

MIXED = Batch(torch.randn(7, 3, 2, 2), torch.arange(7), torch.arange(7).flip(0), 0.75)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("batch", [MIXED, Batch(MIXED.images, MIXED.labels)])
def test_parts_are_together_the_batch(batch, size):
    parts = list(batch.parts(size))
    assert all(len(part) == size for part in parts[:-1])
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
    assert {part.share for part in parts} == {batch.share}
    if batch.labels_beside is None:
        assert {part.labels_beside for part in parts} == {None}
    else:
        assert torch.equal(torch.cat([part.labels_beside for part in parts]), batch.labels_beside)


def test_all_of_a_batch_goes_to_a_device():
    moved = MIXED.to("meta")
    assert {tensor.device.type for tensor in (moved.images, moved.labels, moved.labels_beside)} == {"meta"}
    assert moved.share == MIXED.share
    assert Batch(MIXED.images, MIXED.labels).to("meta").labels_beside is None
