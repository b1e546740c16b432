import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from sequencer_models import catalog
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.capabilities import Machine, this_machine


def test_instructions_that_torch_may_not_use_do_not_count():
    program = """
import torch
from torch import nn
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.capabilities import this_machine
machine = this_machine()
assert not machine.has_bf16
assert machine.processor.endswith("(AVX2)"), machine.processor
try:
    with torch.autocast("cpu", torch.bfloat16):
        nn.LSTM(8, 8)(torch.zeros(2, 3, 8))
    assert machine.has_bf16_lstm
except RuntimeError:
    assert not machine.has_bf16_lstm
"""
    environ = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_asking_leaves_the_random_state_and_the_way_of_computing_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda tensor: tensor), torch.inference_mode():
        Machine().has_bf16_lstm  # noqa: B018
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert saved == [], "a checkpoint of activations would miss them when it computes again"


@pytest.fixture
def no_bf16_lstm(monkeypatch):
    """A processor whose `nn.LSTM` raises under bf16 autocast, as AVX2 ones do."""
    run = nn.LSTM.forward

    def forward(self, x, *rest):
        if torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor")
        return run(self, x, *rest)

    monkeypatch.setattr(nn.LSTM, "forward", forward)
    this_machine.cache_clear()
    yield
    this_machine.cache_clear()


@pytest.mark.usefixtures("no_bf16_lstm")
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["small", "medium", "vanilla"])
def test_without_an_lstm_in_bf16_every_model_still_trains_and_predicts_in_it(name, checkpointed):
    assert not this_machine().has_bf16_lstm
    torch.manual_seed(0)
    model, images = catalog.build(name, 4), torch.randn(2, 3, 32, 32)
    checkpoint_activations(model, checkpointed)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    logits.float().logsumexp(1).sum().backward()
    assert logits.dtype == torch.bfloat16
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    model.eval()
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()
