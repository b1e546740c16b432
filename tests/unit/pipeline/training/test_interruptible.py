"""A step that is dropped: where that can happen, and that nothing is left of it."""

import contextlib
import dataclasses
import itertools
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import BudgetExhaustedError, InterruptedRunError
from pipeline.stop import StopToken
from pipeline.training import checkpoint as checkpoints
from pipeline.training.interruptible import StepDropped, asking_between_layers, drop_if_asked
from sequencer_models import catalog, kernels
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.kernels import Kernels
from sequencer_models.lstm_kernel import LstmKernel

KERNELS = ["eager", "native"]
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(name: str, recompute: bool = False) -> nn.Module:
    architectures = {
        "vanilla": {"hidden": 8, "layers": 3, "dropout": 0.2},
        "small": {"dims": (8, 16), "depths": (1, 1), "grid": 4, "dropout": 0.2, "drop_path": 0.2},
    }
    torch.manual_seed(0)
    model = catalog.build(name, 3, **architectures[name])
    checkpoint_activations(model, recompute)
    return model


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(IMAGES), torch.tensor([0, 1]))


class Fuse:
    """Raises at the given question."""

    def __init__(self, question: int | None = None) -> None:
        self.question, self.asked = question, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.question:
            raise StepDropped(BudgetExhaustedError("enough"))


@pytest.fixture(params=KERNELS)
def kernel(request):
    if request.param == "native":
        request.getfixturevalue("native_kernel")
    kernels.select(Kernels(request.param))
    return request.param


def test_without_a_reason_nothing_is_dropped_and_with_one_the_reason_is_passed_on():
    drop_if_asked(StopToken())
    with pytest.raises(StepDropped) as caught:
        drop_if_asked(StopToken(max_time_s=0.0))
    assert isinstance(caught.value.reason, BudgetExhaustedError)
    assert caught.value.reason.__traceback__ is None, "it would keep the activations alive"


def test_no_handler_of_ordinary_errors_keeps_a_step_from_being_dropped():
    assert not issubclass(StepDropped, Exception)


@pytest.mark.parametrize("name", ["vanilla", "small"])
def test_it_asks_before_every_layer_forwards_and_as_often_backwards(name, kernel):
    model, fuse, called = built(name), Fuse(), []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_pre_hook(lambda layer, inputs: called.append(inputs[0].requires_grad))
    with asking_between_layers(model, fuse):
        loss = loss_of(model)
        assert fuse.asked == len(called) > 4
        backwards = sum(called)
        loss.backward()
        assert fuse.asked == len(called) + backwards


def test_it_asks_between_the_layers_of_an_lstm_forwards_and_backwards(native_kernel, monkeypatch):
    kernels.select(Kernels("native"))
    model, events = built("vanilla"), []
    for way in ("forward", "backward"):
        original = getattr(LstmKernel, way)

        def watched(self, *args, original=original):
            events.append("lstm")
            return original(self, *args)

        monkeypatch.setattr(LstmKernel, way, watched)
    with asking_between_layers(model, lambda: events.append("ask")):
        loss_of(model).backward()
    assert events.count("lstm") == 6
    assert ("lstm", "lstm") not in itertools.pairwise(events)


def test_it_asks_while_activations_are_computed_again(kernel):
    asked = {}
    for recompute in (False, True):
        model, fuse = built("small", recompute), Fuse()
        with asking_between_layers(model, fuse):
            loss = loss_of(model)
            forwards = fuse.asked
            loss.backward()
        asked[recompute] = fuse.asked - forwards
    assert asked[True] > asked[False]


def test_a_validation_asks_too():
    model, fuse = built("small").eval(), Fuse()
    with torch.inference_mode(), asking_between_layers(model, fuse):
        model(IMAGES)
    assert fuse.asked > 10


def test_afterwards_nothing_asks_and_no_hook_is_left(kernel):
    model, fuse = built("small"), Fuse(5)
    with pytest.raises(StepDropped), asking_between_layers(model, fuse):
        loss_of(model)
    loss_of(model).backward()
    assert fuse.asked == 5
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "recompute"), [("vanilla", False), ("small", False), ("small", True)])
def test_wherever_a_step_is_dropped_its_activations_are_freed_and_the_next_one_is_as_ever(name, recompute, kernel):
    """Without a collection of garbage: the checkpoint that follows needs the memory."""

    def gradients(fuse: Fuse) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        with asking_between_layers(model, fuse):
            loss_of(model).backward()
        return [parameter.grad for parameter in model.parameters()]

    model = built(name, recompute)
    whole = gradients(never := Fuse())
    activations: list[weakref.ref[torch.Tensor]] = []
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: activations.append(weakref.ref(output)))
    for question in range(2, never.asked):
        activations.clear()
        with contextlib.suppress(StepDropped):
            gradients(Fuse(question))
        assert [left for left in activations if left() is not None] == [], question
    for one, other in zip(gradients(Fuse()), whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", sorted(catalog.MODELS))
def test_no_model_has_state_that_its_forward_pass_changes(name):
    """A dropped step would leave it changed: running statistics would have to be taken back."""
    with torch.device("meta"):
        assert list(catalog.build(name, 3).buffers()) == []


@pytest.mark.parametrize(("name", "recompute"), [("vanilla", False), ("small", False), ("small", True)])
def test_the_checkpoint_of_a_training_that_leaves_is_of_the_step_before_the_dropped_one(
    bench, leave_at, tmp_path, kernel, name, recompute
):
    """To the bit, random states and sums included; in micro-batches, with dropout and drop path."""
    bench = dataclasses.replace(bench, name=name, edit=lambda model: checkpoint_activations(model, recompute))
    bench = bench.with_config(epochs=1, ema_decay=0.8).with_numerics(kernel=kernel, micro_batch_size=3)
    after_step = []
    with bench.training(tmp_path / "whole", never := leave_at()) as training:
        original = training._between_steps

        def watched():
            after_step.append(state_of(training))
            original()

        after_step.append(state_of(training))
        training._between_steps = watched
        training.fit()
    steps_left_in = set()
    for question in np.linspace(1, never.asked, 11, dtype=int):
        folder = tmp_path / str(question)
        with bench.training(folder, leave_at(question)) as training:
            with pytest.raises(InterruptedRunError):
                training.fit()
            assert all(parameter.grad is None for parameter in training.model.parameters())
            assert_same_state(state_of(training), after_step[training.progress.step])
        kept = checkpoints.latest(folder, pytest.fail)
        assert_same_state((kept.tensors, sums_of(kept.progress)), after_step[kept.progress.step])
        steps_left_in.add(kept.progress.step)
    assert steps_left_in == {0, 1, 2, 3}, "in each step, and in the validation"


def test_a_training_that_was_left_goes_on_in_the_same_process(bench, leave_at, tmp_path):
    bench = dataclasses.replace(bench, name="small").with_config(epochs=2)
    whole = bench.fit(tmp_path / "whole", never := leave_at())
    with bench.training(tmp_path / "parts", token := leave_at()) as training:
        for token.question in range(20, never.asked, 60):
            with pytest.raises(InterruptedRunError):
                training.fit()
        training.fit()
    assert_same_state(state_of(training), state_of(whole))


def test_a_second_signal_in_the_middle_of_a_step_ends_it_at_once_without_a_checkpoint(bench, tmp_path):
    class SecondSignal(StopToken):
        asked = 0

        def reason(self):
            self.asked += 1
            if self.asked == 5:
                raise InterruptedRunError("the second Ctrl-C")

    with bench.training(tmp_path, SecondSignal()) as training:
        training.save = lambda: pytest.fail("it saved")
        with pytest.raises(InterruptedRunError, match="second"):
            training.fit()


def state_of(training) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    tensors = checkpoints.snapshot(training.model, training.optimizer, training.average)
    return tensors, sums_of(training.progress)


def sums_of(progress) -> dict[str, object]:
    return {name: getattr(progress, name) for name in ("epoch", "batch", "step", "loss_sum", "correct", "seen")}


def assert_same_state(one, other) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert torch.equal(value, other[0][name]), name


def test_a_time_limit_that_is_used_up_waits_for_the_end_of_the_step(bench, tmp_path):
    class UsedUp(StopToken):
        def reason(self):
            return BudgetExhaustedError("enough")

    for steps in (1, 2, 3):
        with bench.training(tmp_path, UsedUp()) as training, pytest.raises(BudgetExhaustedError):
            training.fit()
        assert training.progress.step == steps, "a step each time, or it would never end"
