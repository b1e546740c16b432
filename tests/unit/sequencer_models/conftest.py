"""timm imports torchvision, which beside a CPU build of torch needs help before the first test module is read."""

from collections.abc import Iterator

import pytest
import torch

from pipeline.data.torchvision_import import import_torchvision
from sequencer_models import kernels, linear
from sequencer_models.kernels import Kernels

import_torchvision()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    """Every test starts with the default kernels."""
    kernels.select(Kernels())
    yield
    kernels.select(Kernels())


@pytest.fixture
def native(native_kernel: object) -> None:
    """The native kernel is selected, if there is one."""
    kernels.select(Kernels(lstm="native"))


@pytest.fixture(params=["matmul", "convolution"])
def native_with_each_linear(native: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "FEWEST_TOKENS", 1)  # so that it is used for the few tokens of the tests
    kernels.select(Kernels("native", request.param))
