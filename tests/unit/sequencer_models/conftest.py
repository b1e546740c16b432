"""timm imports torchvision, which beside a CPU build of torch needs help before the first test module is read."""

import pytest
import torch

from pipeline.data.torchvision_import import import_torchvision

import_torchvision()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
