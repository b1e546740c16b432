import contextlib
import dataclasses
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import pytest

from pipeline.config.keys import known_keys
from pipeline.config.resolution import resolve
from pipeline.config.schema import MODEL_NAMES, RunConfig
from pipeline.errors import BudgetExhaustedError, ConfigError, WorkspaceError
from pipeline.stages import register, train
from pipeline.stages.context import Context
from pipeline.stages.runner import STAGES, Runner, check_stage, identities, plan
from pipeline.stop import StopToken
from pipeline.tracking import delivery_state
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, StageFolder
from pipeline.workspace.paths import Workspace

OTHER_VALUES = {
    "seed": 7,
    "data.source": "npm",
    "data.folder": "elsewhere",
    "data.classes": "cat,frog",
    "data.fraction": 0.5,
    "data.validation_fraction": 0.2,
    "data.split_seed": 7,
    "model.dims": {"small": [16, 32], "medium": [16, 16, 32]},
    "model.depths": {"small": [1, 1], "medium": [1, 1, 1]},
    "model.grid": 4,
    "model.stem": "conv",
    "model.mlp_ratio": 2.0,
    "model.dropout": 0.3,
    "model.drop_path": 0.3,
    "model.init": "paper",
    "model.sequence": "patches",
    "model.hidden": 8,
    "model.layers": 1,
    "train.epochs": 3,
    "train.batch_size": 7,
    "train.learning_rate": 0.5,
    "train.weight_decay": 0.5,
    "train.schedule": "cosine",
    "train.warmup_fraction": 0.1,
    "train.label_smoothing": 0.2,
    "train.clip_norm": 2.0,
    "train.ema_decay": 0.9,
    "train.early_stopping_patience": 2,
    "train.augment.translate_pixels": 1,
    "train.augment.flip": False,
    "train.augment.cutout_pixels": 3,
    "evaluate.calibration_bins": 7,
    "evaluate.mistakes": 7,
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
    if key != "model.name" and (model, key) != ("vanilla", "compute.recompute")  # which cannot be
]


def prints_of(config: RunConfig, workspace: Workspace, **environ: str) -> dict[str, str]:
    settings = mlflow_settings.load(workspace, environ)
    return {stage: identity.fingerprint for stage, identity in identities(config, settings).items()}


def states(house, *sets: str, through: str = "register", fresh: tuple[str, ...] = ()) -> dict[str, str]:
    config = resolve("vanilla", sets=["data.source=synthetic", *sets])
    steps = plan(config, house.context.mlflow, house.workspace, through, fresh=fresh)
    return {step.stage: step.state for step in steps}


def reasons(house, *sets: str, model: str = "vanilla") -> dict[str, str]:
    config = resolve(model, sets=["data.source=synthetic", *sets])
    return {step.stage: step.why for step in plan(config, house.context.mlflow, house.workspace)}


@pytest.mark.parametrize(("model", "key"), SETTABLE, ids=lambda text: text)
def test_a_field_changes_the_fingerprints_of_the_stages_that_read_it_and_no_other(tmp_path, model, key):
    value = OTHER_VALUES[key]
    value = value[model] if isinstance(value, dict) else value
    before, after = resolve(model), resolve(model, flags={key: value})
    assert before != after
    old, new = (prints_of(config, Workspace(tmp_path)) for config in (before, after))
    changed = {stage for stage in STAGES if old[stage] != new[stage]}
    if key in NOT_IN_ANY_RESULT:
        assert changed == set()
    elif key.startswith("data."):
        assert changed == set(STAGES)
    elif key.startswith("evaluate."):
        assert changed == {"evaluate"}
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
    monkeypatch.setattr(train, "VERSION", train.VERSION + 1)
    after = prints_of(resolve(), Workspace(tmp_path))
    assert [stage for stage in STAGES if before[stage] != after[stage]] == ["train", "evaluate", "register"]


def test_every_stage_runs_once_and_a_repeated_command_does_nothing(house):
    first = house.run()
    assert house.ran == list(STAGES)
    assert not first.did_nothing
    again = house.run()
    assert house.ran == []
    assert again.did_nothing
    assert set(house.why.values()) == {"up to date"}
    assert (again.prepared, again.trained, again.evaluation, again.registration) == (
        first.prepared,
        first.trained,
        first.evaluation,
        first.registration,
    )


def test_results_point_to_the_finished_folder(house):
    outcome = house.run()
    for result in (outcome.prepared, outcome.trained, outcome.evaluation, outcome.registration):
        assert (result.folder / MANIFEST).exists()


@pytest.mark.parametrize("through", STAGES)
def test_a_command_runs_no_further_than_the_stage_it_names(house, through):
    house.run(through=through)
    assert house.ran == list(STAGES[: STAGES.index(through) + 1])


def test_a_changed_setting_runs_only_what_reads_it(house):
    house.run()
    house.run("evaluate.mistakes=3")
    assert house.ran == ["evaluate"]
    house.run("train.epochs=3")
    assert house.ran == ["train", "evaluate", "register"]
    house.run()  # what was made before is still there
    assert house.ran == []


def test_a_change_says_what_changed(house):
    house.run()
    house.run("train.epochs=3", "data.classes=[cat,frog]")
    assert house.why["prepare"] == "data.classes: airplane automobile bird cat -> cat frog"
    assert house.why["train"] == "train.epochs: 11 -> 3, prepare changed"
    why = reasons(house, "seed=1", "train.epochs=9", "train.clip_norm=2", "train.batch_size=9")["train"]
    assert why.startswith("seed: 0 -> 1, train.epochs: 11 -> 9"), "the nearest is the one on the same inputs"
    assert why.endswith("and 1 more")


def test_what_was_never_made_for_this_model_is_not_compared_with_another(house):
    house.run()
    assert reasons(house, model="small")["train"] == "not made yet"


def test_another_version_of_the_stage_is_said(house, monkeypatch):
    house.run()
    monkeypatch.setattr(train, "VERSION", train.VERSION + 1)
    assert reasons(house)["train"] == "this version of seqpipe makes train in another way"


def test_planning_makes_no_folder_and_says_that_all_is_missing(house):
    assert states(house) == dict.fromkeys(STAGES, "missing")
    assert list(house.workspace.root.iterdir()) == []


def test_a_plan_with_everything_made_has_nothing_to_run(house):
    house.run()
    assert states(house) == dict.fromkeys(STAGES, "up to date")


def test_fresh_runs_every_stage_again_and_only_with_all(house):
    house.run()
    house.run(fresh=STAGES)
    assert house.ran == list(STAGES)
    house.run(fresh=("evaluate",), through="evaluate")
    assert house.ran == ["evaluate"]


def test_fresh_prepare_leaves_the_trainings_as_they_are(house):
    house.run()
    house.run(fresh=("prepare",), through="prepare")
    assert house.ran == ["prepare"]
    house.run()
    assert house.ran == []


def test_a_fresh_training_makes_what_stands_on_it_anew(house):
    house.run()
    house.run(fresh=("train",), through="train")
    assert house.ran == ["train"]
    assert states(house) == {
        "prepare": "up to date", "train": "up to date", "evaluate": "missing", "register": "missing",
    }  # fmt: skip
    house.run()
    assert house.ran == ["evaluate", "register"]


def test_a_fresh_training_leaves_those_of_another_model(house):
    house.run(model="small")
    house.run()
    house.run(fresh=("train",), through="train")
    house.run(model="small")
    assert house.ran == []


def test_fresh_makes_what_two_models_share_once_in_a_command(house):
    work = Runner(house.context, fresh=STAGES)
    for model in ("vanilla", "small"):
        work.run(resolve(model, sets=["data.source=synthetic"]), "evaluate")
    assert house.ran.count("evaluate") == 2
    house.ran.clear()
    work = Runner(house.context, fresh=STAGES)
    for model in ("vanilla", "small"):
        work.run(resolve(model, sets=["data.source=synthetic"]), "register")
    assert sorted(house.ran) == sorted(["prepare", *(2 * ["train", "evaluate", "register"])])


def lose_folder(house, stage: str) -> None:
    shutil.rmtree(house.folder(stage))


def lose_manifest(house, stage: str) -> None:
    (house.folder(stage) / MANIFEST).unlink()


@pytest.mark.parametrize("lose", [lose_folder, lose_manifest])
@pytest.mark.parametrize("stage", STAGES)
def test_after_a_loss_the_plan_says_what_the_run_then_does(house, lose, stage):
    house.run()
    lose(house, stage)
    planned = [name for name, state in states(house).items() if state != "up to date"]
    house.run()
    assert house.ran == planned
    assert house.ran == (["train", "evaluate", "register"] if stage == "train" else [stage])


@pytest.mark.parametrize("fresh", [(), ("prepare",), ("train",), STAGES])
@pytest.mark.parametrize("through", STAGES)
def test_the_plan_says_what_the_run_then_does(house, through, fresh):
    house.run("train.epochs=3")
    house.run(through="train")
    planned = [name for name, state in states(house, through=through, fresh=fresh).items() if state != "up to date"]
    house.run(through=through, fresh=fresh)
    assert house.ran == planned


def test_a_registration_whose_store_is_gone_is_made_again(house):
    house.run()
    (house.workspace.root / "mlflow.db").unlink()
    assert reasons(house)["register"] == "mlflow.db is gone"
    house.run()
    assert house.ran == ["register"]


def test_what_is_up_to_date_is_used_while_another_process_holds_its_folder(house, monkeypatch):
    outcome = house.run()
    monkeypatch.setattr(house.context.reporter, "note", pytest.fail)  # who has to wait says so
    folder = StageFolder(house.workspace, "train", outcome.trained.folder.name)
    with exclusive(folder.lock_path, print, what="it"):
        house.run()
    assert house.ran == []


def test_a_stage_that_was_finished_while_this_command_waited_for_it_is_not_made_again(house, monkeypatch):
    made = house.run(through="prepare").prepared.folder
    hidden = made.with_name("hidden")
    made.rename(hidden)
    folder = StageFolder(house.workspace, "prepare", made.name)
    locked = folder.locked

    @contextmanager
    def late(stage_folder, *waiting):
        with locked(*waiting):
            hidden.rename(made)  # the other process was done just then
            yield

    monkeypatch.setattr(StageFolder, "locked", late)
    house.run(through="prepare")
    assert house.ran == []


def test_a_stage_that_fails_leaves_its_work_for_the_next_command(house):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run()
    assert house.folder("train").name.endswith(".partial")
    assert (house.folder("train") / "work").exists()
    assert states(house)["train"] == "partial"
    house.fails.clear()
    house.run()
    assert house.ran == ["train", "evaluate", "register"]
    assert house.why["train"] == "begun before, and made again"


def test_a_training_that_goes_on_says_from_where(house):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run()
    described = house.folder("train") / "step-00000040.json"
    described.write_text('{"progress": {"epoch": 2, "step": 40}}')
    assert reasons(house)["train"] == "2 epochs done, step 40"
    house.fails.clear()
    house.run()
    assert house.why["train"] == "going on: 2 epochs done, step 40"
    assert not (house.folder("train") / described.name).exists()


def test_a_failed_fresh_training_goes_on_with_the_new_one(house):
    house.run()
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run(fresh=("train",), through="train")
    house.fails.clear()
    house.run()
    assert house.ran[0] == "train"


def test_a_damaged_manifest_of_another_run_does_not_stop_this_one(house):
    house.run(model="small")
    for stage in ("train", "evaluate", "register"):
        (house.folder(stage) / MANIFEST).write_text("{")
    house.run()
    assert house.ran == ["train", "evaluate", "register"]
    with pytest.raises(WorkspaceError, match="damaged manifest"):
        house.run(model="small")


def test_a_manifest_that_another_version_wrote_is_told(house):
    house.run()
    manifest = house.folder("train") / MANIFEST
    manifest.write_text(manifest.read_text().replace('"parameters"', '"weights"'))
    with pytest.raises(WorkspaceError, match="remove that folder") as caught:
        house.run()
    assert len(str(caught.value).splitlines()) == 1


def test_the_reports_figures_are_for_the_run_of_the_training(house):
    outcome = house.run()
    record = delivery_state.read_run(house.workspace, outcome.trained.run_key)
    assert f"evaluate/{outcome.evaluation.folder.name}" in record.journals


def test_a_used_up_budget_ends_the_command_before_the_next_stage(house):
    used_up = StopToken(max_time_s=0)
    context = Context(house.workspace, house.context.reporter, used_up, house.context.mlflow, house.context.tracker)
    with pytest.raises(BudgetExhaustedError):
        Runner(context).run(resolve("vanilla"))
    assert house.ran == []


def test_all_stands_for_the_last_stage_and_an_unknown_one_is_refused():
    assert check_stage("all") == "register"
    assert check_stage("train") == "train"
    with pytest.raises(ConfigError, match="choose from prepare, train, evaluate, register, or all"):
        check_stage("tarin")


def test_planning_loads_neither_torch_nor_mlflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.config.resolution import resolve; from pipeline.stages import runner\n"
        "from pipeline.tracking import settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "runner.plan(resolve(), settings.load(place, {}), place)\n"
        "print([name for name in ('torch', 'mlflow', 'ray', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_registration_in_a_store_that_was_made_anew_does_not_stand(house):
    house.run()
    for told in (house.workspace.hidden / "runs").glob("*@*.json"):  # as making a new store does
        told.unlink()
    with contextlib.closing(sqlite3.connect(house.workspace.root / "mlflow.db")) as store:
        store.execute("CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT)")
    assert states(house)["register"] == "stale"
    house.run()
    assert house.ran == ["register"]
    assert house.why["register"] == "mlflow.db was made anew since"


def test_what_was_reached_is_known_when_a_stage_fails(house):
    house.fails.add("register")
    work = Runner(house.context)
    with pytest.raises(RuntimeError):
        work.run(resolve("vanilla", sets=["data.source=synthetic"]))
    [outcome] = work.outcomes
    assert outcome.evaluation is not None
    assert outcome.registration is None


def test_made_up_images_never_compete_with_real_ones_under_one_name(context):
    settings = dataclasses.replace(context.mlflow, registered_model="mine")
    assert register.model_name(resolve("vanilla"), settings) == "mine"
    assert register.model_name(resolve("vanilla", sets=["data.source=synthetic"]), settings) == "mine-synthetic"
    assert (
        register.model_name(resolve("vanilla", sets=["data.source=synthetic"]), context.mlflow)
        == "synthetic-airplane-automobile-bird-cat"
    )
