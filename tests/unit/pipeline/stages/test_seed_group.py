"""Several seeds: what one command does with them, and the run that they lie under."""

import dataclasses
import shutil

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import (
    BudgetExhaustedError,
    CheckpointError,
    GateRefusedError,
    InterruptedRunError,
    MemoryCapError,
    TrackingError,
    TrainingDivergedError,
    WorkspaceError,
)
from pipeline.stages import seed_group
from pipeline.stages.plan import identities
from pipeline.stages.request import Request
from pipeline.stages.results import Evaluation, TrainedModel
from pipeline.stages.runner import Runner
from pipeline.stages.seed_group import SeedGroup, group_of
from pipeline.tracking import delivery_state
from pipeline.tracking.journal import FILE_NAME, read
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import MANIFEST

SYNTHETIC = ("data.source=synthetic",)


def config_of(seed: int = 0, *sets: str, model: str = "vanilla"):
    return resolve(model, sets=[*SYNTHETIC, *sets], flags={"seed": seed})


@pytest.fixture
def seeds(house):
    """Runs several seeds; what became of them."""
    house.workspace.create()

    def command(*seeds: int, sets=(), models=("vanilla",), through="register", fresh=False) -> Runner:
        house.ran.clear()
        house.parents.clear()
        configs = [config_of(seed, *sets, model=model) for model in models for seed in seeds]
        request = Request(configs, through, fresh, seeds)
        house.runner = Runner(house.context, fresh=request.fresh)
        house.runner.run_all(request)
        return house.runner

    return command


def group(house, *sets: str, model: str = "vanilla") -> SeedGroup:
    return SeedGroup(config_of(0, *sets, model=model), house.context)


def run_of(house, *sets: str) -> dict[str, object]:
    """What the run over the seeds shows, as its journal has it: the last value of everything."""
    shown: dict[str, object] = {}
    for event in read(group(house, *sets)._folder / FILE_NAME):
        shown |= event.content["values"]
    return shown


def record_of(house, *sets: str):
    return delivery_state.read_run(house.workspace, group(house, *sets).key)


def test_the_seeds_run_one_after_another_on_data_that_is_prepared_once(house, seeds):
    runner = seeds(0, 1, 2)
    assert house.ran == ["prepare", *(3 * ["train", "evaluate", "register"])]
    assert [one.config.seed for one in runner.outcomes] == [0, 1, 2]
    assert seeds(0, 1, 2).outcomes[1].did_nothing
    assert house.ran == []
    seeds(0, 1, 2, 5)
    assert house.ran == ["train", "evaluate", "register"]


def test_every_model_has_all_seeds_and_a_run_of_its_own(house, seeds):
    seeds(0, 1, models=("vanilla", "small"), through="train")
    keys = [group(house, model=model).key for model in ("vanilla", "small")]
    assert house.parents == [keys[0], keys[0], keys[1], keys[1]]
    assert len(set(keys)) == 2


def test_the_group_is_the_training_without_its_seed(house):
    def found(*sets, seed=0, model="vanilla"):
        return group_of(identities(config_of(seed, *sets, model=model), house.context.mlflow)["train"])

    assert found() == found(seed=7) == found("evaluate.mistakes=3", "compute.threads=1")
    others = [found(*sets) for sets in (("train.epochs=3",), ("data.classes=[cat,dog]",), ("model.hidden=8",))]
    assert len({found(), found(model="small"), *others}) == 5


def test_the_run_shows_how_the_figures_spread_and_more_seeds_add_to_it(house, seeds):
    house.accuracies.update({0: 0.8, 1: 0.9, 2: 0.7})
    seeds(0, 1)
    shown = run_of(house)
    assert shown["seqpipe.seeds"] == "0, 1"
    assert shown["seeds"] == 2
    for name in ("test/accuracy", "best/validation_accuracy"):
        assert shown[f"{name}_mean"] == pytest.approx(0.85)
        assert shown[f"{name}_deviation"] == pytest.approx(0.0707, abs=1e-4)
        assert shown[f"{name}_mean_low"] < 0.8 < 0.9 < shown[f"{name}_mean_high"]
    assert "seed" not in shown, "it has no seed of its own"
    assert (shown["train.epochs"], shown["seqpipe.kind"]) == (9, "seeds")
    assert "test accuracy 85.00 %, mean of 2 seeds" in shown["mlflow.note.content"]
    assert record_of(house).status == "FINISHED"
    seeds(2)
    shown = run_of(house)
    assert (shown["seqpipe.seeds"], shown["seeds"]) == ("0, 1, 2", 3)
    assert shown["test/accuracy_mean"] == pytest.approx(0.8)


def test_the_figures_of_the_test_split_are_those_of_the_evaluation_that_was_asked_for(house, seeds):
    seeds(0, 1)
    assert [one.evaluation is not None for one in group(house, "evaluate.mistakes=3").results()] == [False, False]
    house.accuracies[0] = 0.9
    seeds(0, sets=("evaluate.mistakes=3",))
    found = group(house, "evaluate.mistakes=3").results()
    assert [one.evaluation and one.evaluation.accuracy for one in found] == [0.9, None]


def test_a_repeated_command_writes_nothing_more(house, seeds):
    seeds(0, 1)
    path = group(house)._folder / FILE_NAME
    before = (path.read_bytes(), record_of(house))
    seeds(0, 1)
    assert (path.read_bytes(), record_of(house)) == before


def test_trainings_that_were_there_before_are_moved_under_the_run(house, seeds):
    alone = house.run("seed=0").results[TrainedModel]
    assert delivery_state.read_run(house.workspace, alone.run_key).parent == ""
    seeds(0, 1)
    record = delivery_state.read_run(house.workspace, alone.run_key)
    assert (record.parent, record.is_moved) == (group(house).key, True)
    assert house.parents == [group(house).key], "the other one was told at its beginning"


def test_a_report_made_later_leaves_a_training_under_its_run(house, seeds):
    trained = seeds(0, 1, through="train").outcomes[0].results[TrainedModel]
    house.run("seed=0")
    assert delivery_state.read_run(house.workspace, trained.run_key).parent == group(house).key


@pytest.mark.parametrize(
    "error", [TrainingDivergedError("nan"), CheckpointError("torn"), TrackingError("away"), GateRefusedError("worse")]
)
def test_a_seed_that_fails_by_itself_leaves_the_others_and_its_error_ends_the_command(house, seeds, error):
    house.errors[1] = error
    with pytest.raises(type(error)) as caught:
        seeds(0, 1, 2)
    assert caught.value is error
    assert [one.failure for one in house.runner.outcomes] == [None, error, None]
    assert house.runner.outcomes[1].unfinished == "train"
    assert house.runner.outcomes[2].results.get(Evaluation)
    assert house.context.reporter.warnings == [f"vanilla, seed 1: {error}\nThe other seeds go on."]
    assert record_of(house).status == "FAILED"
    assert run_of(house)["seqpipe.seeds"] == "0, 2"
    house.errors.clear()
    seeds(0, 1, 2)
    assert house.ran == ["train", "evaluate", "register"]
    assert record_of(house).status == "FINISHED"


def test_the_first_of_two_errors_is_the_commands(house, seeds):
    house.errors.update({1: TrackingError("first"), 2: TrainingDivergedError("second")})
    with pytest.raises(TrackingError, match="first"):
        seeds(0, 1, 2)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryCapError("at its cap"), "FAILED"),
        (WorkspaceError("the disk is full"), "FAILED"),
        (BudgetExhaustedError("used up"), "KILLED"),
        (InterruptedRunError("Ctrl-C"), "KILLED"),
    ],
)
def test_what_would_end_the_others_too_ends_the_command(house, seeds, error, status):
    house.errors[1] = error
    with pytest.raises(type(error)):
        seeds(0, 1, 2)
    assert [one.config.seed for one in house.runner.outcomes] == [0, 1]
    assert record_of(house).status == status
    assert run_of(house)["seqpipe.seeds"] == "0"
    house.errors.clear()
    seeds(0, 1, 2)
    assert house.ran == 2 * ["train", "evaluate", "register"]


def test_a_command_that_gets_no_further_than_the_data_leaves_no_run(house, seeds):
    house.fails.add("prepare")
    with pytest.raises(RuntimeError):
        seeds(0, 1)
    assert house.ran == ["prepare"]
    assert record_of(house) is None
    assert list(house.workspace.hidden.glob("seeds/*")) == []


def test_without_seeds_an_error_ends_the_command_as_ever(house):
    house.workspace.create()
    house.errors[0] = TrainingDivergedError("nan")
    with pytest.raises(TrainingDivergedError):
        Runner(house.context).run_all(Request([config_of(), config_of(model="small")]))
    assert house.ran == ["prepare", "train"]
    assert house.parents == [""]


def test_the_run_is_open_while_a_seed_is_trained_and_a_killed_command_leaves_it_to_the_next(
    house, seeds, monkeypatch
):
    seen = []

    def look(*_):
        record = record_of(house)
        seen.append((record.status, delivery_state.is_worked_on(house.workspace, record)))
        raise RuntimeError("killed")

    monkeypatch.setattr("pipeline.stages.train.train", look)
    monkeypatch.setattr(Runner, "_write", lambda self, group, status: status == "RUNNING" and group.write(status))
    with pytest.raises(RuntimeError):
        seeds(0)
    assert seen == [("RUNNING", True)]
    assert house.context.tracker.close_dead() == ["seeds of vanilla, 4 classes"]
    assert record_of(house).status == "KILLED"


def test_fresh_makes_every_seed_anew_and_what_they_share_once(house, seeds):
    seeds(0, 1)
    seeds(0, 1, fresh=True, through="all")
    assert house.ran == ["prepare", *(2 * ["train", "evaluate", "register"])]


def test_damaged_or_vanished_results_are_left_out_of_the_run(house, seeds):
    runner = seeds(0, 1, 2)
    folders = [one.results[TrainedModel].folder for one in runner.outcomes]
    (folders[0] / MANIFEST).write_text("{")
    shutil.rmtree(folders[1])
    assert [one.seed for one in group(house).results()] == [2]


def test_a_run_that_cannot_be_written_is_told_and_ends_no_training(house, seeds, monkeypatch):
    def full(*_):
        raise WorkspaceError("the disk is full")

    monkeypatch.setattr(SeedGroup, "write", full)
    seeds(0)
    assert house.ran[-1] == "register"
    assert set(house.context.reporter.warnings) == {"the run over the seeds is not as it should be: the disk is full"}


def test_the_run_is_written_by_one_command_at_a_time(house, seeds, monkeypatch):
    held = []
    monkeypatch.setattr(
        SeedGroup, "_write_journal", lambda self, _: held.append(is_held(house.workspace.lock(self.key)))
    )
    seeds(0)
    assert held
    assert all(held)


def test_one_seed_has_a_mean_alone():
    trained = TrainedModel.model_construct(validation_accuracy=0.5)
    of = seed_group.spreads([seed_group.SeedResult(0, trained)])
    assert seed_group.metrics_of(of) == {"seeds": 1.0, "best/validation_accuracy_mean": 0.5}
    assert of.test_accuracy is None
    assert dataclasses.is_dataclass(of)
