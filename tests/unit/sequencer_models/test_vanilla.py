import pytest
import torch
from torch import nn

from sequencer_models import kernels
from sequencer_models.kernels import Kernels
from sequencer_models.vanilla import VanillaBiLSTM
from sequencer_models.vanilla_spec import VanillaArchitecture


def test_rows_are_read_top_to_bottom():
    images = torch.randn(2, 3, 32, 32)
    steps = VanillaBiLSTM(VanillaArchitecture(4)).flatten(images)
    assert steps.shape == (2, 32, 96)
    assert torch.equal(steps[1, 7].reshape(32, 3), images[1, :, 7].T)


def test_patches_are_read_in_reading_order():
    images = torch.randn(2, 3, 32, 32)
    steps = VanillaBiLSTM(VanillaArchitecture(4, sequence="patches")).flatten(images)
    assert steps.shape == (2, 64, 48)
    patch = images[1, :, 4:8, 8:12]  # second row of patches, third patch
    assert torch.equal(steps[1, 8 + 2].reshape(4, 4, 3), patch.permute(1, 2, 0))


@pytest.mark.parametrize("sequence", ["rows", "patches"])
def test_logits_come_from_stacked_bilstms_without_any_convolution(sequence):
    model = VanillaBiLSTM(VanillaArchitecture(4, sequence=sequence, hidden=8, layers=3))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert (model.rnn.num_layers, model.rnn.bidirectional) == (3, True)
    assert not any(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.usefixtures("native_with_each_linear")
@pytest.mark.parametrize(("layers", "pooling"), [(1, "mean"), (3, "mean"), (2, "attention")])
def test_the_native_kernel_gives_what_nn_lstm_gives(layers, pooling):
    architecture = VanillaArchitecture(4, hidden=20, layers=layers, dropout=0.0, pooling=pooling, forget_bias=1.0)
    model, images, results = VanillaBiLSTM(architecture), torch.randn(30, 3, 32, 32), []
    for chosen in (kernels.selected(), Kernels()):
        kernels.select(chosen)
        model.zero_grad()
        logits = model(images)
        logits.logsumexp(1).sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_attention_pools_the_steps_of_the_last_layer():
    model, images = (
        VanillaBiLSTM(VanillaArchitecture(4, hidden=8, pooling="attention")).eval(),
        torch.randn(2, 3, 32, 32),
    )
    torch.nn.init.normal_(model.pooling.score.weight)
    outputs = model.rnn(model.flatten(images))[0]  # B x T x 2D
    scores = outputs @ model.pooling.score.weight[0]  # B x T
    pooled = (scores.softmax(1).unsqueeze(2) * outputs).sum(1)
    expected = model.head(torch.nn.functional.gelu(model.fc(model.norm(pooled))))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.usefixtures("native")
def test_the_native_kernel_drops_out_between_layers_and_in_training_only():
    model, steps = VanillaBiLSTM(VanillaArchitecture(4, hidden=8, layers=2, dropout=0.5)), torch.randn(8, 32, 96)
    assert not torch.equal(model.recur(steps), model.recur(steps))
    model.eval()
    torch.testing.assert_close(model.recur(steps), model.rnn(steps)[0])


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_changes_training_but_not_eval(layers, recwarn):
    model = VanillaBiLSTM(VanillaArchitecture(4, hidden=8, layers=layers, dropout=0.5))
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence": "columns"}, "rows, patches"),
        ({"sequence": "patches", "patch_size": 5}, "choose from"),
        ({"hidden": 0}, "hidden is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"classes": 0}, "classes is 0"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"init": "xavier"}, "he, paper"),
        ({"pooling": "max"}, "mean, attention"),
        ({"forget_bias": 11.0}, "forget_bias is 11.0: it must be at most 10"),
    ],
)
def test_an_architecture_that_does_not_fit_says_what_would(fields, message):
    with pytest.raises(ValueError, match=message):
        VanillaArchitecture(**{"classes": 4, **fields})
