"""Few synthetic images of four classes, and a config that trains on them in a fraction of a second."""

import functools
from pathlib import Path

import pytest

from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.data import sources
from pipeline.data.prepared import PreparedData
from pipeline.data.synthetic import SyntheticSpec
from pipeline.progress import SilentReporter
from pipeline.stages import prepare
from pipeline.stages.context import Context
from pipeline.stop import StopToken
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace

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


def config_with(*sets: str) -> RunConfig:
    return resolve("vanilla", sets=[*SETS, *sets])


def few_images(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sources, "obtain", functools.partial(sources.obtain, synthetic_spec=SPEC))


def prepared_in(root: Path, config: RunConfig) -> PreparedData:
    workspace = Workspace(root)
    (root / "whole").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        settings = mlflow_settings.load(workspace, {})
        return prepare.prepare(
            config, root / "whole", Context(workspace, SilentReporter(), StopToken(), settings, None)
        )
