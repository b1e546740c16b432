import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from pipeline.config.schema import ComputeConfig
from pipeline.errors import MachineUnfitError
from pipeline.training import autotune, resolve_numerics
from pipeline.training.autotune import Speeds
from pipeline.training.numerics import Numerics
from sequencer_models import capabilities
from sequencer_models.capabilities import this_machine
from tuning.machine import Machine


@pytest.fixture
def machine(monkeypatch):
    """Sets what the machine has; a feature of the processor is one that torch may use."""

    def has(*, cuda: bool = False, mps: bool = False, **features: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Some CPU", **features})
        monkeypatch.setattr(capabilities, "_onednn_takes_bf16", lambda: True)
        this_machine.cache_clear()
        vars(this_machine())["native_kernel"] = (None, "no C compiler here")  # else it would be built

    monkeypatch.setattr(autotune, "speeds", lambda cpu, threads, has_bf16: Speeds(20.0, 10.0, 5.0, 5.0))
    yield has
    this_machine.cache_clear()


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_fastest_device_that_is_there(machine, cuda, mps, chosen):
    machine(cuda=cuda, mps=mps)
    assert resolve_numerics.resolve_device("auto") == chosen
    assert resolve_numerics.resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_exit_code_6(machine, asked):
    machine()
    with pytest.raises(MachineUnfitError, match=rf"no {asked} device here \(there is: cpu\)") as caught:
        resolve_numerics.resolve_device(asked)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("features", "precision"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32"), ({}, "fp32")],
)
def test_auto_is_bf16_only_where_the_processor_has_it_natively(machine, features, precision):
    machine(**features)
    assert resolve_numerics.resolve_precision("auto", "cpu", 1) == precision
    assert resolve_numerics.resolve_precision("auto", "mps", 1) == "fp32"
    assert resolve_numerics.resolve_precision("bf16", "cpu", 1) == "bf16"
    assert resolve_numerics.resolve_precision("fp32", "cpu", 1) == "fp32"


@pytest.mark.parametrize(("bf16_ms", "precision"), [(5.0, "bf16"), (9.5, "fp32"), (20.0, "fp32")])
def test_auto_is_bf16_only_where_it_was_measured_to_be_faster(machine, monkeypatch, bf16_ms, precision):
    machine(avx512_bf16=True)
    monkeypatch.setattr(autotune, "speeds", lambda cpu, threads, has_bf16: Speeds(20.0, 10.0, bf16_ms, bf16_ms))
    found = resolve_numerics.resolve(ComputeConfig(), batch_size=32)
    assert (found.precision, found.linear) == (precision, "convolution" if precision == "fp32" else "matmul")


def test_the_kernel_is_native_where_it_can_be_built(machine, monkeypatch):
    machine()
    kernel = SimpleNamespace(digest="0123", compiler="some compiler 1.2")
    monkeypatch.setattr(this_machine(), "native_kernel", (kernel, None))
    found = resolve_numerics.resolve(ComputeConfig(), 32)
    assert (found.kernel, found.kernel_compiler) == ("native 0123", "some compiler 1.2")
    assert resolve_numerics.resolve(ComputeConfig(kernel="eager"), 32).kernel == "eager"
    monkeypatch.setattr(this_machine(), "native_kernel", (None, "no C compiler here"))
    assert resolve_numerics.resolve(ComputeConfig(), 32).kernel == "eager"
    with pytest.raises(MachineUnfitError, match="no C compiler here") as caught:
        resolve_numerics.resolve(ComputeConfig(kernel="native"), 32)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("has_bf16_lstm", "kernel", "lstms"),
    [(True, "eager", "bf16"), (False, "eager", "fp32"), (False, "native", "bf16")],
)
def test_nn_lstm_is_in_fp32_where_the_processor_has_none_in_bf16(machine, monkeypatch, has_bf16_lstm, kernel, lstms):
    machine()
    monkeypatch.setattr(this_machine(), "has_bf16_lstm", has_bf16_lstm)
    monkeypatch.setattr(this_machine(), "native_kernel", (SimpleNamespace(digest="0123", compiler="gcc"), None))
    found = resolve_numerics.resolve(ComputeConfig(precision="bf16", kernel=kernel), 32)
    assert (found.precision, found.lstm_precision) == ("bf16", lstms)
    assert resolve_numerics.resolve(ComputeConfig(precision="fp32", kernel=kernel), 32).lstm_precision == "fp32"


def test_the_kernel_is_for_the_cpu(machine):
    machine(cuda=True)
    assert resolve_numerics.resolve_kernel("auto", "cuda") == "eager"
    with pytest.raises(MachineUnfitError, match="for the CPU"):
        resolve_numerics.resolve_kernel("native", "cuda")


def test_threads_are_the_physical_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert resolve_numerics.available_cores() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert resolve_numerics.available_cores() == 8
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)  # some containers do not tell
    assert resolve_numerics.available_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert resolve_numerics.available_cores() == 4


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (1.0, 1), (1.5, 2), (64, 8)])
def test_a_share_of_a_core_is_worth_a_thread(monkeypatch, quota, threads):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr(resolve_numerics.machine, "this_machine", lambda: Machine(10**9, 10**9, quota))
    assert resolve_numerics.available_cores() == threads


def test_what_the_config_leaves_open_is_decided_and_recorded(machine):
    machine()
    found = resolve_numerics.resolve(ComputeConfig(), batch_size=32)
    assert (found.device, found.precision, found.micro_batch_size) == ("cpu", "fp32", 32)
    assert found.threads == resolve_numerics.available_cores()
    assert found.torch == torch.__version__
    assert found.cpu.startswith("Some CPU (")
    assert Numerics.from_json(found.to_json()) == found


def test_the_config_comes_first(machine):
    machine()
    asked = ComputeConfig(device="cpu", precision="bf16", threads=3, micro_batch_size=5)
    found = resolve_numerics.resolve(asked, batch_size=32)
    assert (found.precision, found.threads, found.micro_batch_size) == ("bf16", 3, 5)
    assert resolve_numerics.resolve(asked, batch_size=4).micro_batch_size == 4  # no more than a batch
