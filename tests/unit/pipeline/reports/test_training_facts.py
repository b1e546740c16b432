"""What is known of a training: from its own files, and what is said of those that are gone."""

import json

import pytest
from paired_predictions import predictions_of

from pipeline.config.keys import to_yaml
from pipeline.config.resolution import resolve
from pipeline.evaluation.metrics import compute
from pipeline.evaluation.predictions import save_predictions
from pipeline.reports.named_runs import NamedRun, RunFinder
from pipeline.reports.training_facts import HERE, read_training
from pipeline.tracking.journal import Journal

RIGHT = [1] * 14 + [0] * 6


@pytest.fixture
def read(house):
    """Reads the one training of the workspace, which is registered."""
    house.run("seed=3")
    folder = house.folder("train")
    (folder / "config.yaml").write_text(to_yaml(resolve("vanilla", sets=["data.source=synthetic", "seed=3"])))
    (folder / "provenance.json").write_text(json.dumps({"git_commit": None, "versions": {"torch": "2.13"}}))
    (folder / "epochs.json").write_text(json.dumps([{"epoch": 1, "train/loss": 1.0}]))

    def read():
        [run] = RunFinder(house.workspace, house.context.mlflow.address).every()
        return read_training(run, house.workspace)

    return read


def predict(house, facts, name="predictions.npz"):
    folder = house.workspace.predictions / facts.run.key
    folder.mkdir(parents=True, exist_ok=True)
    save_predictions(folder / name, predictions_of(RIGHT))
    return folder / name


def test_it_has_figures_curves_settings_and_lineage(read, house):
    predict(house, read())
    facts = read()
    assert facts.metrics.accuracy == 0.7
    assert (facts.seed, facts.name, facts.config.seed) == (3, "seed 3", 3)
    assert facts.epochs == [{"epoch": 1, "train/loss": 1.0}]
    assert facts.lineage["hash of the data"] == "d0"
    assert facts.lineage["torch"] == "2.13"
    assert facts.lineage["version 1"] == "of m, champion when it was registered; gate: not asked"
    assert (facts.lineage["on"], facts.missing, facts.is_mirrored) == (HERE, (), False)
    json.dumps(facts.to_json(), allow_nan=False)


def test_without_its_predictions_it_has_the_figures_that_its_evaluation_kept_and_says_so(read, house):
    assert read().metrics is None
    assert "has no predictions of the test images" in read().missing[0]
    kept = compute(predictions_of(RIGHT)).to_json()
    (house.folder("evaluate") / "report.json").write_text(json.dumps(kept))
    facts = read()
    assert facts.metrics.accuracy == 0.7
    assert facts.predictions is None
    assert facts.missing[1] == "its figures are those that its evaluation kept"


def test_damaged_predictions_and_a_config_of_another_version_are_said(read, house):
    predict(house, read()).write_bytes(b"torn")
    (house.folder("train") / "config.yaml").write_text("trian: {}\n")
    facts = read()
    assert facts.metrics is None
    assert facts.config is None
    assert facts.missing[0] == "its config cannot be read by this version of seqpipe"
    assert "no usable predictions" in facts.missing[1]


def test_it_knows_the_laptop_that_trained_it_what_was_forecast_and_that_images_were_mirrored(read, house):
    predict(house, read(), "predictions-mirrored.npz")
    with Journal(house.folder("train")) as journal:
        journal.tags({"seqpipe.node": "laptop-b"})
        journal.tags({"seqpipe.forecast_s": "12.5"})
    facts = read()
    assert (facts.node, facts.forecast_s) == ("laptop-b", 12.5)
    assert facts.is_mirrored


def test_of_a_registered_version_from_elsewhere_there_are_its_figures_alone(house, tmp_path):
    save_predictions(tmp_path / "predictions.npz", predictions_of(RIGHT))
    run = NamedRun("k9", "task/9", "small", 10, tmp_path / "predictions.npz")
    facts = read_training(run, house.workspace)
    assert facts.metrics.accuracy == 0.7
    assert (facts.name, facts.validation_accuracy, facts.config, facts.missing) == ("task/9", None, None, ())
    assert facts.lineage == {"run": "k9"}
