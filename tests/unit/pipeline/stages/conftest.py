"""Made-up images of four classes, prepared once; a configuration that trains in a fraction of a second."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import mlflow_settings
from pipeline.config import RunConfig, resolve
from pipeline.data import sources
from pipeline.data.synthetic import SyntheticSpec
from pipeline.interrupts import Control
from pipeline.reporting import Silent
from pipeline.stages import prepare
from pipeline.stages.context import Context
from pipeline.stages.results import PreparedData
from pipeline.workspace import Workspace

SETS = [
    "data.source=synthetic",
    "data.validation_fraction=0.2",
    "model.hidden=8",
    "model.layers=1",
    "train.epochs=2",
    "train.batch_size=16",
    "compute.threads=1",
    "compute.precision=fp32",
    "compute.device=cpu",
]
SPEC = SyntheticSpec(train_per_class=10, test_per_class=5)


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return resolve("vanilla", sets=SETS)


@pytest.fixture(scope="session")
def changed() -> Callable[..., RunConfig]:
    return lambda *sets: resolve("vanilla", sets=[*SETS, *sets])


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "obtain", functools.partial(sources.obtain, synthetic_spec=SPEC))


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> PreparedData:
    root = tmp_path_factory.mktemp("prepared")
    workspace = Workspace(root)
    (root / "whole").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "obtain", functools.partial(sources.obtain, synthetic_spec=SPEC))
        settings = mlflow_settings.load(workspace, {})
        return prepare.prepare(config, root / "whole", Context(workspace, Silent(), Control(), settings, None))


@pytest.fixture
def prepared(prepared_once: PreparedData, tmp_path: Path) -> PreparedData:
    """A copy that a test may damage."""
    folder = tmp_path / "prepared"
    shutil.copytree(prepared_once.folder, folder)
    return prepared_once.model_copy(update={"folder": folder})
