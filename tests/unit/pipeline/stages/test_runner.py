import contextlib
import shutil
import sqlite3
from contextlib import contextmanager

import pytest

from pipeline.config.resolution import resolve
from pipeline.data.prepared import PreparedData
from pipeline.errors import BudgetExhaustedError, WorkspaceError
from pipeline.stages import last_runs
from pipeline.stages.catalog import STAGES
from pipeline.stages.context import Context
from pipeline.stages.plan import Command
from pipeline.stages.request import Request
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.stages.runner import Runner
from pipeline.stop import StopToken
from pipeline.tracking import delivery_state
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, StageFolder

RESULTS = (PreparedData, TrainedModel, Evaluation, Registration)


def config_of(model="vanilla"):
    return resolve(model, sets=["data.source=synthetic"])


def states(house, *sets: str, through: str = "register", fresh: tuple[str, ...] = ()) -> dict[str, str]:
    found = house.plan(*sets, through=through, command=Command(fresh))
    return {stage: decision.state for stage, decision in found.items()}


def test_every_stage_runs_once_and_a_repeated_command_does_nothing(house):
    first = house.run()
    assert house.ran == list(STAGES)
    assert not first.did_nothing
    again = house.run()
    assert house.ran == []
    assert again.did_nothing
    assert set(house.why.values()) == {"up to date"}
    assert [again.results[kind] for kind in RESULTS] == [first.results[kind] for kind in RESULTS]


def test_results_point_to_the_finished_folder(house):
    outcome = house.run()
    for kind in RESULTS:
        assert (outcome.results[kind].folder / MANIFEST).exists()


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
    assert house.why["train"] == "train.epochs: 9 -> 3, prepare changed"
    why = house.plan("seed=1", "train.epochs=5", "train.clip_norm=2", "train.batch_size=9")["train"].why
    assert why.startswith("seed: 0 -> 1, train.epochs: 9 -> 5"), "the nearest is the one on the same inputs"
    assert why.endswith("and 1 more")


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
    assert house.plan()["register"].why == "mlflow.db is gone"
    house.run()
    assert house.ran == ["register"]


def test_what_is_up_to_date_is_used_while_another_process_holds_its_folder(house, monkeypatch):
    outcome = house.run()
    monkeypatch.setattr(house.context.reporter, "note", pytest.fail)  # who has to wait says so
    folder = StageFolder(house.workspace, "train", outcome.results[TrainedModel].folder.name)
    with exclusive(folder.lock_path, print, what="it"):
        house.run()
    assert house.ran == []


def test_a_stage_that_was_finished_while_this_command_waited_for_it_is_not_made_again(house, monkeypatch):
    made = house.run(through="prepare").results[PreparedData].folder
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
    assert house.plan()["train"].why == "2 epochs done, step 40"
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
    record = delivery_state.read_run(house.workspace, outcome.results[TrainedModel].run_key)
    assert f"evaluate/{outcome.results[Evaluation].folder.name}" in record.journals


def test_a_used_up_budget_ends_the_command_before_the_next_stage(house):
    used_up = StopToken(max_time_s=0)
    context = Context(house.workspace, house.context.reporter, used_up, house.context.mlflow, house.context.tracker)
    with pytest.raises(BudgetExhaustedError):
        Runner(context).run(resolve("vanilla"))
    assert house.ran == []


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
    assert outcome.results.get(Evaluation) is not None
    assert outcome.results.get(Registration) is None


@pytest.mark.parametrize("lose", [lose_manifest, None])
@pytest.mark.parametrize("fresh", [(), ("train",), STAGES])
def test_the_run_gives_the_reasons_of_the_plan(house, fresh, lose):
    house.run()
    if lose is not None:
        lose(house, "train")
    planned = {stage: one.announcement for stage, one in house.plan(command=Command(fresh)).items() if one.runs}
    house.run(fresh=fresh)
    assert {stage: why for stage, why in house.why.items() if why != "up to date"} == planned


def test_fresh_empties_what_is_partial(house):
    house.run()
    house.fails.add("evaluate")
    with pytest.raises(RuntimeError):
        house.run("evaluate.mistakes=3")
    [partial] = house.workspace.stage("evaluate").glob("*.partial")
    (partial / "left over").touch()
    house.fails.clear()
    outcome = house.run("evaluate.mistakes=3", fresh=("evaluate",), through="evaluate")
    assert [path.name for path in sorted(outcome.results[Evaluation].folder.iterdir())] == [MANIFEST, "work"]


@pytest.mark.parametrize(
    ("through", "fresh", "resumed"),
    [("register", (), True), ("train", (), True), ("prepare", (), False), ("train", ("train",), False)],
)
def test_the_run_of_a_training_that_the_command_resumes_stays_open(house, monkeypatch, through, fresh, resumed):
    house.fails.add("train")
    with pytest.raises(RuntimeError):
        house.run()
    (house.folder("train") / "run.json").write_text('{"key": "t-1", "name": "n"}')
    given = []
    monkeypatch.setattr(house.context.tracker, "close_dead", lambda keys=(): given.append(set(keys)))
    Runner(house.context, fresh=fresh).end_dead_runs([config_of()], through)
    assert ("t-1" in given[0]) == resumed


def test_a_command_closes_dead_runs_first_keeps_its_settings_and_delivers_at_the_end(house, monkeypatch):
    events = []
    tracker = house.context.tracker
    monkeypatch.setattr(tracker, "close_dead", lambda keys=(): events.append("close"))
    monkeypatch.setattr(tracker, "deliver_pending", lambda: events.append("deliver"))
    house.workspace.create()
    request = Request([config_of("vanilla"), config_of("small")], "prepare")
    Runner(house.context).run_all(request, lambda model, stage, why: events.append((model, stage, why)))
    up_to_date = ("small", "prepare", "up to date")
    assert events == ["close", ("vanilla", "prepare", "not made yet"), up_to_date, "deliver"]
    assert last_runs.read(house.workspace) == {"vanilla": [config_of("vanilla")], "small": [config_of("small")]}


def test_settings_that_cannot_be_kept_do_not_end_the_command(house, monkeypatch):
    def fail(*_):
        raise WorkspaceError("the disk is full")

    monkeypatch.setattr(last_runs, "write", fail)
    Runner(house.context).run_all(Request([config_of()], "prepare"))
    assert house.ran == ["prepare"]
    assert house.context.reporter.warnings == ["`seqpipe status` will not know of this run: the disk is full"]
