"""evaluate: predict the test split once per trained model, keep the predictions, report on them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.later_settings import counted
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.stages.context import Context
from pipeline.stages.results import Evaluation, Results, TrainedModel
from pipeline.stages.stage import Stage
from pipeline.stages.train import NAME as TRAIN
from pipeline.stages.train import identity_of
from pipeline.tracking.journal import Journal
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.durable_files import write_json, writing
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import ClassificationReport
    from pipeline.evaluation.predictions import Predictions

NAME = "evaluate"
VERSION = 1


class Evaluate(Stage):
    """Its figures belong to the MLflow run of the training."""

    name = NAME
    version = VERSION
    result = Evaluation
    inputs = (TRAIN,)
    loads_model = True

    def reads(self, config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Any]:
        """What the report depends on, apart from the trained model."""
        return {"model": {"name": config.model.name}, "evaluate": counted(config.evaluate, "evaluate")}

    def run(self, config: RunConfig, made: Results, folder: Path, context: Context) -> Evaluation:
        return evaluate(config, made[PreparedData], made[TrainedModel], folder, context)

    def summary(self, result: Mapping[str, Any]) -> str:
        return f"test accuracy {result['accuracy']:.2%}"

    def after(self, made: Results, context: Context) -> None:
        folder = made[Evaluation].folder
        context.tracker.deliver(identity_of(made[TrainedModel]), f"{NAME}/{folder.name}", folder)


STAGE = Evaluate()


def evaluate(
    config: RunConfig, prepared: PreparedData, trained: TrainedModel, folder: Path, context: Context
) -> Evaluation:
    """Write `report.json` and the plots into `folder`, from the model's kept predictions."""
    from pipeline.evaluation import galleries, metrics, plots
    from pipeline.evaluation.chart_style import save_figure
    from pipeline.evaluation.predictions import most_confident_mistakes

    predictions = kept_predictions(config, prepared, trained, context)
    report = metrics.compute(predictions, calibration_bins=config.evaluate.calibration_bins)
    write_json(folder / "report.json", report.to_json())

    mistakes = most_confident_mistakes(predictions, config.evaluate.mistakes)
    images = prepared.array("test_images")
    rows = json.loads(trained.epochs_file.read_bytes())
    figures = {
        "confusion_matrix": plots.confusion_chart(report),
        "calibration": plots.reliability_diagram(report),
        "class_scores": plots.class_scores_chart(report),
        "learning_curves": plots.learning_curves(rows, trained.best_epoch),
        "most_confident_mistakes": galleries.mistakes_gallery(images, mistakes, prepared.class_names),
    }
    with Journal(folder) as journal:
        journal.truncate(0)
        journal.metrics(run_metrics(report), step=trained.best_epoch)
        journal.tags({f"evaluate.{key}": str(value) for key, value in config.evaluate.model_dump().items()})
        journal.artifact(folder / "report.json")
        for name, figure in figures.items():
            with writing(folder):
                save_figure(figure, folder / f"{name}.png")
            journal.artifact(folder / f"{name}.png", "plots")
    # Recorded before the folder is whole, after which no command looks at this stage again.
    context.tracker.record(identity_of(trained), f"{NAME}/{folder.name.removesuffix('.partial')}", folder)
    return Evaluation(
        folder=folder,
        images=report.images,
        loss=report.loss,
        accuracy=report.accuracy,
        accuracy_low=report.accuracy_low,
        accuracy_high=report.accuracy_high,
        macro_f1=report.macro_f1,
        ece=report.ece,
    )


def predictions_folder(workspace: Workspace, trained: TrainedModel) -> Path:
    """The folder of a trained model's predictions, which every report on it shares."""
    return workspace.predictions / trained.run_key


def predictions_file(workspace: Workspace, trained: TrainedModel, *, mirrored: bool) -> Path:
    """Where a trained model's predictions are kept; those with mirrored views are others."""
    name = "predictions-mirrored.npz" if mirrored else "predictions.npz"
    return predictions_folder(workspace, trained) / name


def kept_predictions(
    config: RunConfig, prepared: PreparedData, trained: TrainedModel, context: Context
) -> "Predictions":
    """The model's predictions of the test split: made by the first call, read from disk by later ones."""
    from pipeline.evaluation.predictions import load_predictions

    path = predictions_file(context.workspace, trained, mirrored=config.evaluate.mirrored)
    with exclusive(
        context.workspace.lock(f"predictions-{trained.run_key}"), context.reporter.note, what="the predictions"
    ):
        if not path.exists():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            _predict(config, prepared, trained, path, context)
        return load_predictions(path)


def _predict(config: RunConfig, prepared: PreparedData, trained: TrainedModel, path: Path, context: Context) -> None:
    import numpy as np

    from pipeline.evaluation import latency
    from pipeline.evaluation.predictions import Predictions, save_predictions
    from pipeline.training import allocator, numerics
    from pipeline.training.checkpoint import load_weights
    from pipeline.training.models import build_model
    from sequencer_models.inference import probabilities

    allocator.give_back_freed_memory()  # of a training in this process
    test = {name: prepared.array(f"test_{name}") for name in ("images", "labels", "ids")}
    model = build_model(config, len(prepared.class_names))
    model.load_state_dict(load_weights(trained.weights))
    total = len(test["labels"])
    numerics.use(trained.numerics["threads"], trained.numerics["recurrence"], trained.numerics["linear"])
    found = probabilities(
        model,
        test["images"],
        prepared.mean,
        prepared.std,
        mirrored=config.evaluate.mirrored,
        done=lambda count: context.reporter.bytes_done("predicting the test images", count, total),
    )
    save_predictions(
        path,
        Predictions(np.asarray(test["ids"]), np.asarray(test["labels"]), found, tuple(prepared.class_names)),
    )
    latency.keep(latency.measure(model), path.parent)
    del model
    allocator.give_back_freed_memory()


def run_metrics(report: "ClassificationReport") -> dict[str, float]:
    """The figures on the run's page in MLflow, by name."""
    return {
        "test/accuracy": report.accuracy,
        "test/accuracy_low": report.accuracy_low,
        "test/accuracy_high": report.accuracy_high,
        "test/loss": report.loss,
        "test/macro_f1": report.macro_f1,
        "test/ece": report.ece,
    } | {f"test/f1_{scores.name}": scores.f1 for scores in report.classes}
