"""Facts of trainings as a report gathers them, made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paired_predictions import predictions_of

from pipeline.evaluation.metrics import compute
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.named_runs import NamedRun
from pipeline.reports.report_facts import Pair, Report
from pipeline.reports.search_facts import SearchFacts
from pipeline.reports.training_facts import HERE, TrainingFacts
from pipeline.stages.results import TrainedModel

EPOCHS = [
    {"epoch": 1, "train/loss": 1.0, "validation/loss": 0.9, "train/accuracy": 0.4, "validation/accuracy": 0.5},
    {"epoch": 2, "train/loss": 0.8, "validation/loss": 0.8, "train/accuracy": 0.6, "validation/accuracy": 0.6},
]


def trained_model(folder: Path, seed: int = 0, validation: float = 0.6, **changes: Any) -> TrainedModel:
    """Of two epochs on the CPU."""
    usual: dict[str, Any] = {
        "model": "vanilla", "run_key": f"{folder.name}-{seed}", "run_name": f"vanilla, seed {seed}",
        "parameters": 15844, "epochs": 2, "best_epoch": 2, "validation_accuracy": validation, "validation_loss": 0.8,
        "trained_s": 200.0, "images_per_s": 500.0, "peak_memory_mb": 480.0, "git_commit": "c0ffee",
        "numerics": {"cpu": "a processor", "precision": "fp32", "threads": 2, "recurrence": "native 1a"},
        "pflop": 0.02,
    }  # fmt: skip
    return TrainedModel(folder=folder, **{**usual, **changes})


def training(
    right: Sequence[int] | None, seed: int = 0, validation: float = 0.6, name: str = "f0", **changes: Any
) -> TrainingFacts:
    """A training that is right on these test images; None: it was not evaluated."""
    trained = trained_model(Path("stages") / name, seed, validation)
    run = NamedRun(
        trained.run_key, trained.run_name, trained.model, trained.parameters, None, run_id=f"id{seed}",
        settings={"seed": seed, "train": {"epochs": 2}}, seed_group=name, trained=trained,
        created="2026-01-02T03:04:05Z",
    )  # fmt: skip
    predictions = None if right is None else predictions_of(right)
    usual: dict[str, Any] = {
        "run": run, "predictions": predictions, "metrics": compute(predictions) if predictions else None,
        "config": None, "config_text": "", "epochs": EPOCHS, "latency": None, "registrations": (), "versions": {},
        "node": HERE, "forecast_s": None, "missing": (),
    }  # fmt: skip
    return TrainingFacts(**{**usual, **changes})


def report_of(
    groups: Sequence[GroupFacts], pairs: Sequence[Pair] = (), searches: Sequence[SearchFacts] = ()
) -> Report:
    """A report on them."""
    return Report(tuple(groups), tuple(pairs), tuple(searches), "2026-01-02 03:04 UTC", Path("place"))
