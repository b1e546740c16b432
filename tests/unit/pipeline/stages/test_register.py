"""What register decides: names, lineage, what is offered to the registry, and whether a version still stands."""

import contextlib
import dataclasses
import json
import sqlite3

import numpy as np
import pytest

from pipeline.config.keys import to_yaml
from pipeline.config.resolution import resolve
from pipeline.errors import TrackingError
from pipeline.evaluation import latency
from pipeline.promotion.gate import GateDecision, Verdict
from pipeline.stages import register
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.tracking import delivery_state, registration_check, registry
from pipeline.tracking.delivery_state import StoreRecord
from pipeline.tracking.registry import RegisteredVersion
from pipeline.workspace.manifests import Manifest

SYNTHETIC = resolve("vanilla", sets=["data.source=synthetic"])


def test_made_up_images_never_compete_with_real_ones_under_one_name(context):
    settings = dataclasses.replace(context.mlflow, registered_model="mine")
    assert register.model_name(resolve("vanilla"), settings) == "mine"
    assert register.model_name(SYNTHETIC, settings) == "mine-synthetic"
    assert register.model_name(SYNTHETIC, context.mlflow) == "synthetic-airplane-automobile-bird-cat"


def test_the_model_is_named_after_its_task_whatever_the_architecture(context):
    names = {register.model_name(resolve(model), context.mlflow) for model in ("small", "vanilla")}
    assert names == {"cifar10-airplane-automobile-bird-cat"}


def test_the_registry_is_what_is_read_and_the_store_where_there_is_none(context):
    assert register.STAGE.reads(resolve(), context.mlflow)["registry"] == context.mlflow.address
    elsewhere = dataclasses.replace(context.mlflow, registry_uri="http://host:2")
    assert register.STAGE.reads(resolve(), elsewhere)["registry"] == "http://host:2"


def test_a_version_that_predicts_mirrored_views_is_another_registration(context):
    plain, mirrored = (resolve("vanilla", sets=[f"evaluate.mirrored={value}"]) for value in ("false", "true"))
    assert register.STAGE.reads(plain, context.mlflow) != register.STAGE.reads(mirrored, context.mlflow)


def test_another_gate_than_the_usual_one_is_another_registration(context):
    usual = register.STAGE.reads(resolve(), context.mlflow)
    assert "gate" not in usual, "what was registered before there was a gate stays"
    assert register.STAGE.reads(resolve(sets=["registry.gate.confidence=0.95"]), context.mlflow) == usual
    other = register.STAGE.reads(resolve(sets=["registry.gate.confidence=0.9"]), context.mlflow)
    assert other["gate"]["confidence"] == 0.9


def test_what_the_gate_decided_comes_back_from_the_manifest():
    decision = GateDecision(False, (Verdict("better", False, "p 0.4"),), 2, 0.025)
    made = Registration(
        folder="f", name="m", version="1", aliases=(), run_id="r", run_key="k", tracking_uri="t", decision=decision
    )
    again = Registration.model_validate({**json.loads(json.dumps(made.model_dump(mode="json"))), "folder": "f"})
    assert again.decision == decision
    assert again.is_refused
    assert not Registration.model_validate({**again.model_dump(), "folder": "f", "decision": None}).is_refused


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "t0"
    folder.mkdir()
    figures = {"validation_loss": 1.0, "trained_s": 1.0, "images_per_s": 1.0, "peak_memory_mb": 1.0}
    return TrainedModel(
        folder=folder, model="vanilla", run_key="t0-1", run_name="run", parameters=9, epochs=2, best_epoch=2,
        validation_accuracy=0.5, git_commit="c0", numerics={}, **figures,
    )  # fmt: skip


@pytest.fixture
def evaluation(tmp_path):
    from pipeline.evaluation.metrics import compute
    from pipeline.evaluation.predictions import Predictions

    folder = tmp_path / "e0"
    folder.mkdir()
    probabilities = np.full((8, 4), 0.25, np.float32)
    report = compute(
        Predictions(np.arange(8), np.arange(8) % 4, probabilities, ("a", "b", "c", "d")), calibration_bins=5
    )
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    return Evaluation(
        folder=folder, images=8, loss=1.5, accuracy=0.25, accuracy_low=0.1, accuracy_high=0.6, macro_f1=0.1, ece=0.2
    )


@pytest.fixture
def offered(monkeypatch):
    """What the registry was given."""
    calls = []

    def take(tracker, run_id, name, candidate, gate):
        calls.append((run_id, name, candidate))
        gate.decision = GateDecision(False, (), why_not_compared="other images")
        return RegisteredVersion(name, "3", ("challenger",), not_compared="other images")

    monkeypatch.setattr(registry, "register", take)
    return calls


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "r0.partial"
    made.mkdir()
    return made


def delivering(monkeypatch, context, *, delivered=True, run_id="run-1"):
    monkeypatch.setattr(context.tracker, "deliver", lambda *_, **__: delivered)
    monkeypatch.setattr(context.tracker, "run_id", lambda _: run_id)


def test_a_version_says_where_it_comes_from_and_what_it_is_worth(
    monkeypatch, config, prepared, trained, evaluation, context, folder, offered
):
    delivering(monkeypatch, context)
    monkeypatch.setattr(register, "_test_hashes", lambda workspace: {"d9": "t9"})
    made = register.register(config, prepared, trained, evaluation, folder, context)
    [(run_id, name, candidate)] = offered
    assert (run_id, name) == ("run-1", register.model_name(config, context.mlflow))
    lineage = {
        "data_hash": prepared.data_hash, "config_hash": "r0", "train_fingerprint": "t0", "run_key": "t0-1",
        "git_commit": "c0",
    }  # fmt: skip
    assert candidate.tags == {**lineage, "model": "vanilla", "dataset": "synthetic", "parameters": "9"}
    assert candidate.tags.keys().isdisjoint({"latency_ms"}), "of a model that an earlier release evaluated"
    assert candidate.predictions == context.workspace.predictions / "t0-1" / "predictions.npz"
    assert (candidate.key, candidate.weights) == ("t0-1", trained.weights)
    assert (candidate.test_hash, candidate.earlier_test_hashes) == (prepared.test_hash, {"d9": "t9"})
    assert candidate.example.shape == (register.EXAMPLES, 32, 32, 3)
    assert candidate.metrics["test/accuracy"] == 0.25
    assert "25.00% (10.00% to 60.00%) on 8 images" in candidate.description
    card = json.loads((folder / "model.json").read_bytes())
    assert card == candidate.card
    assert (card["lineage"], card["config"]) == (lineage, to_yaml(config))
    assert card["test"] == {"images": 8, "accuracy": 0.25, "loss": 1.5}
    assert (card["mean"], card["std"]) == (list(prepared.mean), list(prepared.std))
    assert card["mirrored"] is False
    assert (made.version, made.aliases, made.run_id, made.not_compared) == (
        "3",
        ("challenger",),
        "run-1",
        "other images",
    )
    assert (made.test_hash, made.run_key) == (prepared.test_hash, "t0-1")
    assert (made.is_refused, made.decision.why_not_compared) == (True, "other images")


def test_with_mirrored_views_the_same_training_is_another_version_and_its_card_says_so(
    monkeypatch, changed, prepared, trained, evaluation, context, folder, offered
):
    delivering(monkeypatch, context)
    register.register(changed("evaluate.mirrored=true"), prepared, trained, evaluation, folder, context)
    [(_, _, candidate)] = offered
    assert (candidate.key, candidate.tags["run_key"]) == ("t0-1-mirrored", "t0-1")
    assert candidate.card["mirrored"] is True


def test_a_version_says_how_long_it_takes_for_an_image_and_on_what(tmp_path):
    latency.keep(latency.Latency(1.23456, "a processor, 2 threads"), tmp_path)
    assert register._latency_tags(tmp_path) == {"latency_ms": "1.235", "latency_machine": "a processor, 2 threads"}
    assert register._latency_tags(tmp_path / "none") == {}


def test_code_of_no_known_commit_is_unknown(prepared, trained):
    lineage = register.lineage_of(prepared, trained.model_copy(update={"git_commit": None}), "r0")
    assert lineage["git_commit"] == "unknown"


@pytest.mark.parametrize("how", [{"delivered": False}, {"run_id": None}])
def test_nothing_is_registered_of_a_run_that_the_store_does_not_have(
    monkeypatch, config, prepared, trained, evaluation, context, folder, offered, how
):
    delivering(monkeypatch, context, **how)
    with pytest.raises(
        TrackingError, match="not registered, since MLflow does not have all of the run: the store does not answer"
    ):
        register.register(config, prepared, trained, evaluation, folder, context)
    assert offered == []
    assert not (folder / "model.json").exists()


def test_test_splits_of_other_prepared_data_are_known_by_the_hash_of_the_whole(house):
    made = [house.run(f"data.split_seed={seed}", through="prepare") for seed in (0, 1)]
    assert len(made) == 2
    folders = sorted(house.workspace.stage("prepare").iterdir())
    for number, folder in enumerate(folders):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        hashes = {name: f"{name} {number}" for name in ("test_images", "test_labels")}
        manifest["result"] |= {"data_hash": f"d{number}", "sha256": hashes}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert len(set(register._test_hashes(house.workspace).values())) == 2
    (folders[0] / "manifest.json").write_text("{")
    assert list(register._test_hashes(house.workspace)) == ["d1"]


RESULT = {"name": "m", "version": "2", "run_id": "r", "run_key": "k"}


@pytest.fixture
def why(context, monkeypatch):
    """Why the registration of RESULT no longer stands, where the store has what is given."""
    database = context.mlflow.database

    def asked(*, run=None, version=None, record="r", settings=context.mlflow):
        with contextlib.closing(sqlite3.connect(database)):
            database.touch()
        if record is not None:
            store = StoreRecord(context.mlflow.address, record, "1")
            delivery_state.write_store(context.workspace, "k", store)
        monkeypatch.setattr(
            registration_check, "missing_run", lambda file, run_id: (file, run_id) == (database, "r") and run
        )
        monkeypatch.setattr(
            registration_check, "missing_version", lambda *asked_for: version and f"{version}: {asked_for}"
        )
        return register.STAGE.why_invalid(Manifest("register", 1, "f", {}, {}, RESULT), settings, context.workspace)

    return asked


def test_a_registration_stands_where_its_store_has_its_run_and_its_version(why):
    assert why() is None


def test_a_registration_whose_run_or_version_was_deleted_does_not_stand(why, context):
    assert why(run="its run was deleted") == "its run was deleted"
    assert why(version="gone") == f"gone: {(context.mlflow.database, 'm', '2', ('champion', 'challenger'))}"


def test_a_store_with_another_run_or_with_none_was_made_anew(why):
    assert why(record="other") == "mlflow.db was made anew since"


def test_a_store_that_was_never_told_of_the_run_was_made_anew(why):
    assert why(record=None, run="its run was deleted") == "mlflow.db was made anew since"


@pytest.mark.parametrize(
    ("decision", "aliases"),
    [
        ({"promotes": False, "number": 0, "why_not_compared": ""}, ("challenger",)),
        ({"promotes": False, "number": 2, "why_not_compared": ""}, ("champion", "challenger")),
        ({"promotes": False, "number": 0, "why_not_compared": "other images"}, ("champion", "challenger")),
        ({"promotes": True, "number": 0, "why_not_compared": ""}, ("champion", "challenger")),
    ],
)
def test_where_the_gate_refused_the_first_version_it_is_right_that_there_is_no_champion(
    context, monkeypatch, decision, aliases
):
    asked = []
    monkeypatch.setattr(registration_check, "missing_run", lambda *_: None)
    monkeypatch.setattr(registration_check, "missing_version", lambda *given: asked.append(given[3]))
    manifest = Manifest("register", 1, "f", {}, {}, RESULT | {"decision": decision})
    delivery_state.write_store(context.workspace, "k", StoreRecord(context.mlflow.address, "r", "1"))
    context.mlflow.database.touch()
    register.STAGE.why_invalid(manifest, context.mlflow, context.workspace)
    assert asked == [aliases]


def test_a_server_is_not_asked(why, context):
    server = dataclasses.replace(context.mlflow, tracking_uri="http://host:1", database=None)
    assert why(run="deleted", version="gone", settings=server) is None


def test_a_registry_in_a_file_of_its_own_is_looked_at(why, context, tmp_path):
    file = tmp_path / "registry.db"
    settings = dataclasses.replace(context.mlflow, registry_uri=f"sqlite:///{file}")
    assert why(version="gone", settings=settings) == f"gone: {(file, 'm', '2', ('champion', 'challenger'))}"
    elsewhere = dataclasses.replace(context.mlflow, registry_uri="http://host:2")
    assert why(version="gone", settings=elsewhere) is None
