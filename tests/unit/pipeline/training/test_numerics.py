import dataclasses
import os

import pytest
import torch

from pipeline.config.resolution import resolve
from pipeline.training import numerics as numerics_module
from pipeline.training.numerics import Numerics
from sequencer_models import kernel_build, kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.kernels import Kernels


def test_the_names_on_disk_are_those_of_earlier_releases():
    numerics = Numerics("cpu", "bf16", 2, "native 0123", "convolution", 8, "2.13", "Some CPU", "gcc 14", "bf16")
    on_disk = {
        "device": "cpu",
        "precision": "bf16",
        "threads": 2,
        "recurrence": "native 0123",
        "linear": "convolution",
        "micro_batch_size": 8,
        "torch": "2.13",
        "cpu": "Some CPU",
        "kernel_compiler": "gcc 14",
        "lstm_precision": "bf16",
    }
    newer = {"activation_checkpointing": None, "halvings": 0}
    assert list(numerics.to_json().items()) == list((on_disk | newer).items())
    assert Numerics.from_json(on_disk) == numerics, "of the release before"
    chosen = dataclasses.replace(numerics, activation_checkpointing=True, halvings=1)
    assert Numerics.from_json(chosen.to_json()) == chosen


def test_images_at_once_are_halved_once_for_each_time():
    numerics = Numerics("cpu", "fp32", 1, "eager", "matmul", 43, "2.13", "Some CPU")
    assert numerics.halved(0) == numerics
    once = numerics.halved(1)
    assert (once.micro_batch_size, once.halvings) == (22, 1)
    assert once.halved(1) == once
    assert once.halved(0) == once
    assert once.halved(2).micro_batch_size == 11
    assert numerics.halved(9).micro_batch_size == 1


@pytest.mark.parametrize("chosen", [None, False, True])
def test_activation_checkpointing_is_had_by_whoever_chose_it_also_from_a_resume_on(chosen):
    numerics = Numerics("cpu", "fp32", 1, "eager", "matmul", 8, "2.13", "Some CPU", activation_checkpointing=chosen)
    assert numerics.checkpoints_activations(resolve("small", None, [], {})) == bool(chosen)
    assert numerics.checkpoints_activations(resolve("small", None, ["compute.recompute=true"], {}))


def test_the_eager_lstm_takes_the_place_of_a_native_kernel_that_is_gone(monkeypatch):
    monkeypatch.setitem(vars(this_machine()), "native_kernel", (None, "no C compiler here"))
    Numerics("cpu", "fp32", 1, "native 0123", "matmul", 8, torch.__version__, "here").apply()
    assert kernels.selected() == Kernels("eager", "matmul")


def test_numerics_of_an_older_release_are_read():
    found = Numerics("cpu", "fp32", 1, "eager", "matmul", 8, torch.__version__, "here").to_json()
    del found["kernel_compiler"], found["lstm_precision"]
    assert Numerics.from_json(found).lstm_precision is None


def test_numerics_set_the_threads_and_the_type_of_the_forward_pass(monkeypatch):
    monkeypatch.setitem(vars(this_machine()), "native_kernel", (object(), None))
    monkeypatch.setattr(kernel_build, "load", lambda: None)
    numerics = Numerics("cpu", "fp32", 2, "native of today", "convolution", 8, torch.__version__, "here")
    threads = torch.get_num_threads()
    try:
        numerics.apply()
        assert torch.get_num_threads() == 2
        assert kernels.selected() == Kernels("native", "convolution")
    finally:
        torch.set_num_threads(threads)
        kernels.select(Kernels())
    with numerics.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with Numerics("cpu", "bf16", 1, "eager", "matmul", 8, torch.__version__, "here").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_cpu_keeps_freed_memory_and_a_gpu_is_made_deterministic(monkeypatch):
    kept = []
    monkeypatch.setattr(numerics_module, "keep_freed_memory", lambda: kept.append(1))
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    Numerics("cuda", "fp32", 1, "eager", "matmul", 8, torch.__version__, "here").apply()
    assert not kept
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8", "the user's own stays"
    Numerics("cpu", "fp32", 1, "eager", "matmul", 8, torch.__version__, "here").apply()
    assert kept
