"""The result of each stage but prepare: frozen, typed, kept in the stage's manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.promotion.gate import GateDecision
from pipeline.workspace.manifests import StageResult

Result = TypeVar("Result", bound=StageResult)


class TrainedModel(StageResult):
    """The weights with the best validation accuracy, the last ones, and how the training went."""

    model: str
    run_key: str
    run_name: str
    parameters: int
    epochs: int
    best_epoch: int
    validation_accuracy: float
    validation_loss: float
    trained_s: float
    images_per_s: float
    peak_memory_mb: float
    numerics: Mapping[str, Any]
    git_commit: str | None
    pflop: float | None = None
    """Its whole arithmetic, in 10^15 floating point operations; None in trainings of earlier versions of seqpipe."""

    @property
    def weights(self) -> Path:
        """The best weights."""
        return self.folder / "best.safetensors"

    @property
    def epochs_file(self) -> Path:
        """The figures of every epoch."""
        return self.folder / "epochs.json"


class Evaluation(StageResult):
    """The model's figures on the test split."""

    images: int
    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    ece: float


class Registration(StageResult):
    """A version in the model registry."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    run_key: str
    tracking_uri: str
    test_hash: str = ""
    """Of the images that it was evaluated on; empty in registrations of earlier versions of seqpipe."""
    not_compared: str = ""
    """Why it was not compared with the champion."""
    decision: GateDecision | None = None
    """The gate's; None if it was not asked: in registrations of earlier versions, and of the champion itself."""

    @property
    def is_refused(self) -> bool:
        """Whether the gate did not let it become champion."""
        return self.decision is not None and not self.decision.promotes


class Results:
    """What the stages have made so far for one model, by the type of the result."""

    def __init__(self) -> None:
        self._made: dict[type[StageResult], StageResult] = {}

    def add(self, result: StageResult) -> None:
        self._made[type(result)] = result

    def get(self, kind: type[Result]) -> Result | None:
        """The result of that type; None if its stage has not run."""
        found = self._made.get(kind)
        assert found is None or isinstance(found, kind)
        return found

    def __getitem__(self, kind: type[Result]) -> Result:
        found = self.get(kind)
        assert found is not None, f"no {kind.__name__}: its stage has not run"
        return found
