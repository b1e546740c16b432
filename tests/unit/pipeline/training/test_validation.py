import dataclasses

import pytest
import torch
from torch import nn

from pipeline.training.validation import evaluate


def test_validation_figures_do_not_depend_on_its_batch_size_and_keep_the_mode(bench):
    model = bench.model().eval()
    from_all = [
        evaluate(model, dataclasses.replace(bench.validation(), batch_size=size), bench.numerics)
        for size in (1, 4, 10)
    ]
    assert not model.training
    assert len({accuracy for _, accuracy in from_all}) == 1
    assert [loss for loss, _ in from_all] == pytest.approx([from_all[0][0]] * 3, rel=1e-5)


def test_the_figures_are_the_mean_loss_and_the_share_of_right_answers(bench):
    model, validation = bench.model().eval(), bench.validation()
    logits = model(validation.normalise(torch.from_numpy(validation.split.images).permute(0, 3, 1, 2)))
    labels = torch.from_numpy(validation.split.labels)
    loss, accuracy = evaluate(model, validation, bench.numerics)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == int((logits.argmax(1) == labels).sum()) / 10


def test_other_weights_can_take_the_place_of_the_models(bench):
    model, validation = bench.model(), bench.validation()
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    loss, _ = evaluate(model, validation, bench.numerics, zeros)
    assert loss == pytest.approx(torch.tensor(3.0).log().item())
    assert model.training
