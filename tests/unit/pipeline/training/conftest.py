"""A training that takes a fraction of a second: made-up images, tiny models, one thread."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches
from pipeline.errors import InterruptedRunError, SeqpipeError
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.loop import Training
from pipeline.training.numerics import Numerics
from pipeline.training.validation import Validation
from sequencer_models import catalog, kernels
from sequencer_models.kernels import Kernels

CLASSES = 3
MODELS: dict[str, dict[str, object]] = {
    "vanilla": {"hidden": 8, "layers": 2, "dropout": 0.2},
    "small": {"dims": (8, 16), "depths": (1, 1), "grid": 4, "dropout": 0.2, "drop_path": 0.2},
}
MODELS["small with every option"] = {
    **MODELS["small"], "stem": "deep", "whitened": True, "pooling": "attention", "mixing": "columns",
    "recurrent_init": "orthogonal", "forget_bias": 1.0,
}  # fmt: skip
CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=0.01)
NUMERICS = Numerics("cpu", "fp32", 1, "eager", "matmul", 8, torch.__version__, "here")
NORMALISE = Normalisation((120.0, 125.0, 130.0), (60.0, 61.0, 62.0))


def made_up(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(0, 100, (count, 32, 32, 3))
    images[:, :, :, 0] += 75 * labels[:, None, None]  # the classes differ in their red
    return LabelledImages(images.astype(np.uint8), labels.astype(np.int64))


class LeaveAt(StopToken):
    """Asks to leave once, at the given question of those that come while `when` holds for the training."""

    def __init__(self, question: int | None = None, when: Callable[[Training], bool] = lambda training: True) -> None:
        super().__init__()
        self.question = question
        self.when = when
        self.asked = 0
        self.training: Training | None = None

    def reason(self) -> SeqpipeError | InterruptedRunError | None:
        if self.training is not None and self.when(self.training):
            self.asked += 1
            if self.asked == self.question:
                return InterruptedRunError("enough")
        return None


@dataclass
class Bench:
    """What trainings in a test have in common; `training` builds everything anew, as a new process would."""

    name: str = "vanilla"
    images: int = 24
    config: TrainConfig = CONFIG
    numerics: Numerics = NUMERICS
    architecture: dict[str, object] | None = None
    edit: Callable[[nn.Module], None] = lambda model: None
    checkpoint_every_s: float = 1000.0
    reporter: SilentReporter = dataclasses.field(default_factory=SilentReporter)

    def with_config(self, **changes: object) -> "Bench":
        return dataclasses.replace(self, config=TrainConfig.model_validate(self.config.model_dump() | changes))

    def with_numerics(self, **changes: object) -> "Bench":
        return dataclasses.replace(self, numerics=dataclasses.replace(self.numerics, **changes))

    def model(self) -> nn.Module:
        torch.manual_seed(3)
        model = catalog.build(self.name.partition(" ")[0], CLASSES, **(self.architecture or MODELS[self.name]))
        self.edit(model)
        return model

    def validation(self) -> Validation:
        return Validation(made_up(10, 2), NORMALISE, batch_size=4)

    @contextmanager
    def training(self, folder: Path, stop_token: StopToken | None = None) -> Iterator[Training]:
        """A training in a folder, resumed if there is a checkpoint, as the stage does it."""
        folder.mkdir(exist_ok=True)
        self.numerics.apply()
        model = self.model()
        torch.manual_seed(4)
        checkpoint = checkpoints.latest(folder, pytest.fail)
        stop_token = stop_token or LeaveAt()
        with Journal(folder) as journal:
            writer = CheckpointWriter(folder, before=journal.sync, durable=lambda offset: None)
            training = Training(
                model=model,
                batches=TrainBatches(
                    made_up(self.images, 1), NORMALISE, self.config.augment, self.config.batch_size, 5
                ),
                validation=self.validation(),
                config=self.config,
                numerics=self.numerics,
                journal=journal,
                writer=writer,
                reporter=self.reporter,
                stop_token=stop_token,
                checkpoint_every_s=self.checkpoint_every_s,
            )
            if isinstance(stop_token, LeaveAt):
                stop_token.training = training
            try:
                if checkpoint is None:
                    training.save()
                else:
                    training.resume(checkpoint, checkpoints.best_epoch(folder))
                yield training
            finally:
                writer.close()

    def fit(self, folder: Path, stop_token: StopToken | None = None) -> Training:
        with self.training(folder, stop_token) as training:
            training.fit()
        return training


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    kernels.select(Kernels())


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Recorder(SilentReporter):
    """Remembers its notes and warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def leave_at() -> type[LeaveAt]:
    return LeaveAt


@pytest.fixture
def leave_after() -> Callable[[int], LeaveAt]:
    """Asks to leave between this step and the next one."""
    return lambda step: LeaveAt(1, lambda training: training.progress.step == step)
