import pytest
import torch

from pipeline.training import autotune
from pipeline.training.autotune import Speeds
from sequencer_models import kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.kernels import Kernels


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_machine_is_measured_once(monkeypatch):
    has_bf16 = this_machine().has_bf16  # where it is emulated it takes half a minute
    found = autotune.speeds("some processor", 1, has_bf16)
    monkeypatch.setattr(autotune, "measure", lambda threads, has_bf16: pytest.fail("measured again"))
    assert autotune.speeds("some processor", 1, has_bf16) == found


def test_another_processor_or_number_of_threads_is_measured_apart(monkeypatch):
    taken = []
    monkeypatch.setattr(autotune, "measure", lambda threads, has_bf16: taken.append(threads) or Speeds(1, 2, 3, 4))
    for cpu, threads in (("a", 1), ("b", 1), ("a", 2), ("a", 1)):
        autotune.speeds(cpu, threads, True)
    assert taken == [1, 1, 2]


def test_a_damaged_or_unwritable_cache_only_costs_a_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(autotune, "measure", lambda threads, has_bf16: Speeds(1, 2, 3, 4))
    autotune.speeds("a", 1, True)
    (path,) = (tmp_path / "cache" / "seqpipe").glob("speeds-*")
    path.write_text("{")
    assert autotune.speeds("a", 1, True) == Speeds(1, 2, 3, 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file
    assert autotune.speeds("a", 1, True) == Speeds(1, 2, 3, 4)


def test_measuring_leaves_the_process_as_it_was():
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    kernels.select(Kernels(linear="convolution"))
    with torch.inference_mode():
        found = autotune.measure(1, has_bf16=False)
    assert kernels.selected() == Kernels(linear="convolution")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
    assert found.fp32_matmul_ms > 0.1
    assert found.bf16_matmul_ms is None


@pytest.mark.parametrize(
    ("speeds", "fp32", "bf16", "bf16_is_faster"),
    [
        (Speeds(20, 10, 5, 6), "convolution", "matmul", True),
        (Speeds(10, 9.5, 9.2, 9.2), "matmul", "matmul", False),
        (Speeds(10, 12, 20, 8), "matmul", "convolution", True),
        (Speeds(10, 8, None, None), "convolution", "matmul", False),
    ],
)
def test_a_kernel_other_than_the_plain_one_must_be_clearly_faster(speeds, fp32, bf16, bf16_is_faster):
    assert (speeds.linear("fp32"), speeds.linear("bf16")) == (fp32, bf16)
    assert speeds.bf16_is_faster == bf16_is_faster
