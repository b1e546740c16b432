import json

import numpy as np
import pytest
import torch

from pipeline.errors import CheckpointError, WorkspaceError
from pipeline.evaluation.predictions import load_predictions
from pipeline.stages import evaluate
from pipeline.stages.results import TrainedModel
from pipeline.tracking.journal import FILE_NAME, Journal, read
from pipeline.training.checkpoint import save_weights
from pipeline.training.models import build_model
from sequencer_models import inference


@pytest.fixture
def trained(config, tmp_path) -> TrainedModel:
    """A model that was never trained."""
    folder = tmp_path / "trained"
    folder.mkdir()
    save_weights(folder / "best.safetensors", build_model(config, 4).state_dict())
    names = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "learning_rate")
    rows = [{"epoch": epoch, **dict.fromkeys(names, 1.0 / epoch)} for epoch in (1, 2)]
    (folder / "epochs.json").write_text(json.dumps(rows))
    figures = {"validation_loss": 1.0, "trained_s": 1.0, "images_per_s": 1.0, "peak_memory_mb": 1.0}
    return TrainedModel(
        folder=folder, model="vanilla", run_key="f00-1", run_name="run", parameters=9, epochs=2, best_epoch=2,
        validation_accuracy=0.5, git_commit=None, **figures,
        numerics={"threads": 1, "recurrence": "eager", "linear": "matmul"},
    )  # fmt: skip


@pytest.fixture
def predicted(monkeypatch) -> list[int]:
    """How many images each call predicted."""
    calls = []
    original = inference.probabilities

    def counting(model, images, *rest, **named):
        calls.append(len(images))
        return original(model, images, *rest, **named)

    monkeypatch.setattr(inference, "probabilities", counting)
    return calls


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "evaluation.partial"
    made.mkdir()
    return made


def test_the_report_is_computed_from_the_models_predictions(config, prepared, trained, context, folder):
    result = evaluate.evaluate(config, prepared, trained, folder, context)
    kept = load_predictions(evaluate.predictions_folder(context.workspace, trained) / "predictions.npz")
    model = build_model(config, 4)
    images, labels = prepared.array("test_images"), prepared.array("test_labels")
    expected = inference.probabilities(model, images, prepared.mean, prepared.std)
    np.testing.assert_allclose(kept.probabilities, expected, rtol=1e-6)
    assert (kept.ids == prepared.array("test_ids")).all()
    assert result.accuracy == (expected.argmax(1) == labels).mean()
    chosen = torch.from_numpy(expected[np.arange(20), labels]).double()
    assert result.loss == pytest.approx(-chosen.log().mean().item(), rel=1e-6)
    assert (result.images, result.accuracy_low <= result.accuracy <= result.accuracy_high) == (20, True)
    assert json.loads((folder / "report.json").read_bytes())["accuracy"] == result.accuracy


def test_the_test_split_is_predicted_once_per_trained_model(config, changed, prepared, trained, context, predicted):
    first = evaluate.kept_predictions(config, prepared, trained, context)
    again = evaluate.kept_predictions(changed("evaluate.calibration_bins=5"), prepared, trained, context)
    assert predicted == [20]
    assert (again.probabilities == first.probabilities).all()
    trained_again = trained.model_copy(update={"run_key": "f00-2"})
    evaluate.kept_predictions(config, prepared, trained_again, context)
    assert predicted == [20, 20]


def test_mirrored_views_are_predicted_once_too_and_kept_apart(config, changed, prepared, trained, context, predicted):
    mirrored_config = changed("evaluate.mirrored=true")
    plain = evaluate.kept_predictions(config, prepared, trained, context)
    mirrored = evaluate.kept_predictions(mirrored_config, prepared, trained, context)
    assert predicted == [20, 20]
    for settings, kept in ((config, plain), (mirrored_config, mirrored)):
        again = evaluate.kept_predictions(settings, prepared, trained, context)
        assert (again.probabilities == kept.probabilities).all()
    assert predicted == [20, 20]
    model, images = build_model(config, 4), prepared.array("test_images")
    expected = inference.probabilities(model, images, prepared.mean, prepared.std, mirrored=True)
    np.testing.assert_allclose(mirrored.probabilities, expected, rtol=1e-6)
    assert not np.allclose(plain.probabilities, expected, rtol=1e-4)


def test_figures_and_plots_go_to_the_step_of_the_best_epoch(config, prepared, trained, context, folder):
    with Journal(folder) as journal:
        journal.metrics({"test/accuracy": 0.1}, step=1)  # of an evaluation that was broken off
    evaluate.evaluate(config, prepared, trained, folder, context)
    events = list(read(folder / FILE_NAME))
    assert [event.kind for event in events] == ["metrics", "tags", *6 * ["artifact"]]
    assert events[0].content["step"] == 2
    assert {"test/accuracy", "test/f1_cat"} <= set(events[0].content["values"])
    assert events[1].content["values"]["evaluate.mistakes"] == str(config.evaluate.mistakes)
    for event in events[2:]:
        assert (folder / event.content["file"]).stat().st_size > 0
    assert {event.content["folder"] for event in events[3:]} == {"plots"}


def test_a_test_split_that_is_gone_is_told(config, prepared, trained, context, folder):
    (prepared.folder / "test_images.npy").unlink()
    with pytest.raises(WorkspaceError, match=r"test_images\.npy: missing"):
        evaluate.evaluate(config, prepared, trained, folder, context)


def test_damaged_weights_or_predictions_are_told(config, prepared, trained, context, folder):
    trained.weights.write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        evaluate.evaluate(config, prepared, trained, folder, context)
    kept = evaluate.predictions_folder(context.workspace, trained) / "predictions.npz"
    assert not kept.exists()
    kept.write_bytes(b"no predictions")
    with pytest.raises(WorkspaceError, match="remove it and evaluate the model again"):
        evaluate.evaluate(config, prepared, trained, folder, context)


def test_only_the_model_and_the_reports_settings_are_read(config, changed, context):
    def read(config):
        return evaluate.STAGE.reads(config, context.mlflow)

    assert read(config) == read(changed("train.epochs=9", "seed=3"))
    assert read(config) != read(changed("evaluate.mistakes=3"))
