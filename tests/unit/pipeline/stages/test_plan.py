"""Identities, and what is decided from what lies in a workspace."""

import subprocess
import sys
from pathlib import Path

import pytest
from config_files import forget_default_recipe

from pipeline.config.keys import known_keys
from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.stages.catalog import STAGES
from pipeline.stages.plan import Command, identities, made_from
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.stages.train import Train
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, StageFolder
from pipeline.workspace.paths import Workspace

GOLDEN = [
    ("small", [], {}, "948b7881a47c67bd b33ca665615f2c2e 0767db7fcef99ab7 1db08cd53ddd2a19"),
    ("medium", [], {}, "948b7881a47c67bd e2a892b2b7e50f77 bd121f75db4082bd 037029469f66ae3b"),
    (
        "vanilla",
        [],
        {"MLFLOW_TRACKING_URI": "http://host:1"},
        "948b7881a47c67bd 315d8fe5230ce839 aeae77b6e5d08b40 a70098693e01c93e",
    ),
    (
        "vanilla",
        ["data.source=synthetic", "data.classes=[cat,frog]", "data.fraction=0.3"],
        {},
        "be13f43bd74e0e66 d3c54b736d82f01d 0f57bb42a779999a e87b15a1cd628656",
    ),
    (
        "small",
        ["seed=7", "train.epochs=3", "train.augment.flip=false", "model.dims=[16,32]", "evaluate.mistakes=3",
         "compute.precision=bf16"],
        {"MLFLOW_REGISTRY_URI": "http://host:2"},
        "948b7881a47c67bd 4d1d037ce4d354c9 e266d59c61fbf83a d664f6f89ec0ee73",
    ),
]  # fmt: skip
OTHER_VALUES = {
    "seed": 7,
    "data.source": "npm",
    "data.folder": "elsewhere",
    "data.classes": "cat,frog",
    "data.fraction": 0.5,
    "data.validation_fraction": 0.2,
    "data.split_seed": 7,
    "model.dims": {"small": [16, 32], "medium": [16, 32, 32]},
    "model.depths": {"small": [1, 1], "medium": [1, 1, 1]},
    "model.grid": 4,
    "model.stem": "conv",
    "model.stem_width": 8,
    "model.whitened": True,
    "model.mixing": "rows",
    "model.mlp_ratio": 2.0,
    "model.dropout": 0.3,
    "model.drop_path": 0.3,
    "model.pooling": "attention",
    "model.init": "paper",
    "model.recurrent_init": "orthogonal",
    "model.forget_bias": 1.0,
    "model.sequence": "patches",
    "model.hidden": 8,
    "model.layers": 1,
    "train.epochs": 3,
    "train.batch_size": 7,
    "train.learning_rate": 0.5,
    "train.optimizer": "muon",
    "train.muon_learning_rate": 0.5,
    "train.bias_rate_factor": 2.0,
    "train.adam_beta2": 0.9,
    "train.weight_decay": 0.5,
    "train.schedule": "cosine",
    "train.warmup_fraction": 0.1,
    "train.label_smoothing": 0.2,
    "train.clip_norm": 2.0,
    "train.ema_decay": 0.9,
    "train.early_stopping_patience": 2,
    "train.augment.translate_pixels": 1,
    "train.augment.padding": "reflect",
    "train.augment.flip": False,
    "train.augment.alternating_flip": True,
    "train.augment.cutout_pixels": 3,
    "train.augment.cutmix": 0.5,
    "evaluate.mirrored": True,
    "evaluate.calibration_bins": 7,
    "evaluate.mistakes": 7,
    "registry.gate.confidence": 0.9,
    "registry.gate.equal_within_points": 1.0,
    "registry.gate.equal_must_be_cheaper": False,
    "registry.gate.least_accuracy": 0.5,
    "registry.gate.class_drop_points": 5.0,
    "registry.gate.largest_ece": 0.1,
    "compute.device": "cpu",
    "compute.precision": "bf16",
    "compute.kernel": "eager",
    "compute.threads": 1,
    "compute.micro_batch_size": 3,
    "compute.checkpoint_every_s": 7.0,
    "compute.max_memory_mb": 900.0,
    "compute.recompute": True,
    "compute.max_time_s": 7.0,
}

ONLY_WITH = {key: {"model.stem": "deep"} for key in ("model.stem_width", "model.whitened")}
"""What else is set where a value needs it."""


NOT_IN_ANY_RESULT = {
    "data.source",
    "data.folder",
    "compute.device",
    "compute.kernel",
    "compute.threads",
    "compute.micro_batch_size",
    "compute.checkpoint_every_s",
    "compute.max_memory_mb",
    "compute.recompute",
    "compute.max_time_s",
}


SETTABLE = [
    (model, key)
    for model in MODEL_NAMES
    for key in known_keys(model)
    if key not in ("model.name", "recipe")  # a recipe stands for the settings in it
    and (model, key) != ("vanilla", "compute.recompute")  # which cannot be
]


def prints_of(config: RunConfig, workspace: Workspace, **environ: str) -> dict[str, str]:
    settings = mlflow_settings.load(workspace, environ)
    return {stage: identity.fingerprint for stage, identity in identities(config, settings).items()}


@pytest.mark.parametrize(("model", "key"), SETTABLE, ids=lambda text: text)
def test_a_field_changes_the_fingerprints_of_the_stages_that_read_it_and_no_other(tmp_path, monkeypatch, model, key):
    forget_default_recipe(monkeypatch)
    value = OTHER_VALUES[key]
    value = value[model] if isinstance(value, dict) else value
    others = ONLY_WITH.get(key, {})
    before, after = resolve(model, flags=others), resolve(model, flags={**others, key: value})
    assert before != after
    old, new = (prints_of(config, Workspace(tmp_path)) for config in (before, after))
    changed = {stage for stage in STAGES if old[stage] != new[stage]}
    if key in NOT_IN_ANY_RESULT:
        assert changed == set()
    elif key.startswith("data."):
        assert changed == set(STAGES)
    elif key == "evaluate.mirrored":
        assert changed == {"evaluate", "register"}, "the registered model predicts so, too"
    elif key.startswith("evaluate."):
        assert changed == {"evaluate"}
    elif key.startswith("registry."):
        assert changed == {"register"}
    else:
        assert changed == {"train", "evaluate", "register"}


def test_made_up_images_are_another_data_set(tmp_path):
    real, synthetic = (
        prints_of(resolve(sets=[f"data.source={source}"]), Workspace(tmp_path)) for source in ("npm", "synthetic")
    )
    assert all(real[stage] != synthetic[stage] for stage in STAGES)


def test_two_models_share_the_prepared_data_and_nothing_else(tmp_path):
    small, vanilla = (prints_of(resolve(model), Workspace(tmp_path)) for model in ("small", "vanilla"))
    assert [stage for stage in STAGES if small[stage] == vanilla[stage]] == ["prepare"]


def test_the_precision_counts_as_it_was_asked_for(tmp_path):
    prints = {
        prints_of(resolve(sets=[f"compute.precision={asked}"]), Workspace(tmp_path))["train"]
        for asked in ("auto", "fp32", "bf16")
    }
    assert len(prints) == 3


def test_another_registry_is_another_registration_of_the_same_training(tmp_path):
    here = prints_of(resolve(), Workspace(tmp_path))
    there = prints_of(resolve(), Workspace(tmp_path), MLFLOW_TRACKING_URI="http://host:1")
    assert [stage for stage in STAGES if here[stage] != there[stage]] == ["register"]


def test_a_raised_version_makes_a_stage_and_what_stands_on_it_anew(tmp_path, monkeypatch):
    before = prints_of(resolve(), Workspace(tmp_path))
    monkeypatch.setattr(Train, "version", Train.version + 1)
    after = prints_of(resolve(), Workspace(tmp_path))
    assert [stage for stage in STAGES if before[stage] != after[stage]] == ["train", "evaluate", "register"]


def test_what_was_never_made_for_this_model_is_not_compared_with_another(house):
    house.run()
    assert house.plan(model="small")["train"].why == "not made yet"


def test_another_version_of_the_stage_is_said(house, monkeypatch):
    house.run()
    monkeypatch.setattr(Train, "version", Train.version + 1)
    assert house.plan()["train"].why == "this version of seqpipe makes train in another way"


def test_planning_makes_no_folder_and_says_that_all_is_missing(house):
    assert [one.state for one in house.plan().values()] == 4 * ["missing"]
    assert list(house.workspace.root.iterdir()) == []


def test_a_plan_with_everything_made_has_nothing_to_run(house):
    house.run()
    assert [one.state for one in house.plan().values()] == 4 * ["up to date"]


def test_planning_loads_neither_torch_nor_mlflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.config.resolution import resolve; from pipeline.stages import plan\n"
        "from pipeline.tracking import settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "plan.plan(resolve(), settings.load(place, {}), place)\n"
        "print([name for name in ('torch', 'mlflow', 'ray', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("model", "sets", "environ", "fingerprints"), GOLDEN)
def test_fingerprints_are_those_of_earlier_releases(monkeypatch, model, sets, environ, fingerprints):
    """A changed one makes everything anew that people have: raise the stage's version if that is meant."""
    forget_default_recipe(monkeypatch)
    found = prints_of(resolve(model, sets=sets), Workspace(Path("/nowhere/workspace")), **environ)
    assert " ".join(found[stage] for stage in STAGES) == fingerprints


def test_what_is_up_to_date_says_since_when_and_brings_its_manifest(house):
    house.run()
    for stage, decision in house.plan().items():
        manifest = StageFolder(house.workspace, stage, decision.fingerprint).manifest()
        assert (decision.runs, decision.manifest) == (False, manifest)
        assert decision.why == f"made {manifest.created}"


def test_what_is_partial_says_how_far_it_is_and_a_run_how_it_goes_on(house):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run()
    begun = house.plan()["train"]
    assert (begun.state, begun.why, begun.announcement) == ("partial", "begun", "begun before, and made again")
    (house.folder("train") / "step-00000040.json").write_text('{"progress": {"epoch": 2, "step": 40}}')
    far = house.plan()["train"]
    assert (far.why, far.announcement) == ("2 epochs done, step 40", "going on: 2 epochs done, step 40")


@pytest.mark.parametrize("is_partial", [False, True])
def test_fresh_discards_what_is_there_whole_or_not(house, is_partial):
    house.run()
    if is_partial:
        house.folder("train").rename(house.folder("train").with_name(f"{house.folder('train').name}.partial"))
    decision = house.plan(command=Command(["train"]))["train"]
    assert (decision.state, decision.why) == ("stale", "--fresh discards what is there")
    assert decision.discards


def test_fresh_says_the_ordinary_reason_where_nothing_is_there(house):
    found = house.plan(command=Command(STAGES))
    assert {(one.state, one.why, one.discards) for one in found.values()} == {("missing", "not made yet", False)}
    house.run()
    changed = house.plan("train.epochs=3", command=Command(["train"]))["train"]
    assert (changed.why, changed.discards) == ("train.epochs: 9 -> 3", False)


def test_what_stands_on_a_training_that_runs_again_is_stale(house):
    house.run()
    (house.folder("train") / MANIFEST).unlink()
    found = house.plan()
    assert {stage: one.state for stage, one in found.items()} == {
        "prepare": "up to date", "train": "missing", "evaluate": "stale", "register": "stale",
    }  # fmt: skip
    assert found["evaluate"].why == found["register"].why == "train runs again"


def test_what_stands_on_data_that_is_prepared_again_stays(house):
    house.run()
    (house.folder("prepare") / MANIFEST).unlink()
    assert [stage for stage, one in house.plan().items() if one.runs] == ["prepare"]


def test_what_one_model_makes_is_there_for_the_next_in_the_same_command(house):
    for fresh in ((), STAGES):
        command = Command(fresh)
        first = house.plan(command=command)
        second = house.plan(command=command, model="small")
        assert [stage for stage, one in first.items() if one.runs] == list(STAGES)
        assert [stage for stage, one in second.items() if one.runs] == ["train", "evaluate", "register"]
        assert second["prepare"].why == "made before in this command"
        house.run()


def test_a_stage_is_running_while_its_folder_is_held_and_it_is_not_up_to_date(house):
    for decision in (house.plan()["prepare"], house.run() and house.plan()["prepare"]):
        folder = StageFolder(house.workspace, "prepare", decision.fingerprint)
        assert not decision.is_running(house.workspace)
        with exclusive(folder.lock_path, print, what="it"):
            assert decision.is_running(house.workspace) == decision.runs


def test_what_was_made_from_a_result_is_found_through_others_too(house):
    outcome = house.run()
    house.run(model="small")
    found = identities(outcome.config, house.context.mlflow)
    made = [outcome.results[kind].folder for kind in (Evaluation, Registration)]
    assert [one.whole for one in made_from(found["train"], house.workspace)] == made
    from_prepared = [one.stage for one in made_from(found["prepare"], house.workspace)]
    assert from_prepared == 2 * ["evaluate", "register", "train"]
    assert outcome.results[TrainedModel].folder in [one.whole for one in made_from(found["prepare"], house.workspace)]
