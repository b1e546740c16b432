import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.stages.catalog import STAGES
from pipeline.stages.request import Request, loads_model


def request(stage: str = "all", fresh: bool = False, models: tuple[str, ...] = ("vanilla",)) -> Request:
    return Request([resolve(model, sets=["data.source=synthetic"]) for model in models], stage, fresh)


@pytest.mark.parametrize(("stage", "through", "fresh"), [("all", "register", STAGES), ("train", "train", ("train",))])
def test_fresh_is_for_the_named_stage_and_with_all_for_every_one(stage, through, fresh):
    assert (request(stage).through, request(stage).fresh) == (through, ())
    assert request(stage, True).fresh == fresh


def test_an_unknown_stage_is_refused():
    with pytest.raises(ConfigError, match="there is no stage 'trian'"):
        _ = request("trian").through


def test_a_fresh_command_is_resumed_without_fresh():
    assert request().again == "the same command"
    assert request(fresh=True).again == "the same command without --fresh"


def test_the_plans_are_those_of_each_model_in_one_command(house):
    first, second = request("train", models=("vanilla", "small")).plans(house.context.mlflow, house.workspace)
    assert [one.stage for one in first] == [one.stage for one in second] == ["prepare", "train"]
    assert [one.runs for one in first + second] == [True, True, False, True]


def test_with_several_seeds_each_is_called_by_its_seed():
    configs = [resolve("vanilla", flags={"seed": seed}) for seed in (0, 3)]
    assert [Request(configs, seeds=(0, 3)).label(config) for config in configs] == [
        "vanilla, seed 0",
        "vanilla, seed 3",
    ]
    assert Request(configs).label(configs[1]) == "vanilla"


def test_what_runs_is_what_any_model_needs(house):
    house.run(through="train")
    asked = request("evaluate", models=("vanilla", "small"))
    assert asked.stages_to_run(house.context.mlflow, house.workspace) == {"train", "evaluate"}
    assert request("train").stages_to_run(house.context.mlflow, house.workspace) == set()
    fresh = request("prepare", True)
    assert fresh.stages_to_run(house.context.mlflow, house.workspace) == {"prepare"}


def test_a_model_is_loaded_by_training_and_evaluation_only():
    assert [name for name in STAGES if loads_model({name})] == ["train", "evaluate"]
    assert loads_model({"prepare", "evaluate"})
    assert not loads_model(set())
