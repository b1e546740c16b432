import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from few_images import config_with, few_images, prepared_in

from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return config_with()


@pytest.fixture(scope="session")
def changed() -> Callable[..., RunConfig]:
    return config_with


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> PreparedData:
    return prepared_in(tmp_path_factory.mktemp("prepared"), config)


@pytest.fixture
def prepared(prepared_once: PreparedData, tmp_path: Path) -> PreparedData:
    """A copy that a test may damage."""
    folder = tmp_path / "prepared"
    shutil.copytree(prepared_once.folder, folder)
    return prepared_once.model_copy(update={"folder": folder})
