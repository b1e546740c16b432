import torch
from torch import nn

from pipeline.training.moving_average import MovingAverage


def test_a_moving_average_follows_the_weights_by_its_decay():
    model = nn.BatchNorm1d(2)
    average = MovingAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.num_batches_tracked.fill_(7)
    average.update(model, step=1000)
    torch.testing.assert_close(average.weights["weight"], torch.tensor([1.1, 1.1]))
    assert average.weights["num_batches_tracked"] == 7  # a count is taken over as it is


def test_a_moving_average_shares_no_memory_with_the_model():
    model = nn.Linear(1, 1)
    average = MovingAverage(model, decay=0.9)
    kept = average.weights["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(average.weights["weight"], kept)
    average.load({"weight": torch.full((1, 1), 3.0)})
    assert average.weights["weight"].item() == 3


def test_a_moving_average_forgets_the_weights_that_it_started_from():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = MovingAverage(model, decay=0.9999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for step in range(100):
        average.update(model, step)
    assert average.weights["weight"].item() > 0.99  # 0.01 with the full decay from the first step
