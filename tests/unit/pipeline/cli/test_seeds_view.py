"""`seqpipe run --seeds` with stand-ins for the stages: what it takes, and what it shows."""

import json

import pytest
from offline_store import OfflineConnection

from pipeline.cli.commands import app
from pipeline.errors import BudgetExhaustedError, ConfigError, TrainingDivergedError
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import Tracker
from pipeline.training import forecaster
from pipeline.training.forecaster import TrainingForecast

MODEL = ("-m", "vanilla", "--set", "data.source=synthetic")


@pytest.fixture
def run(house, monkeypatch, capsys):
    """Runs the command in the house; what it wrote to stdout."""
    monkeypatch.chdir(house.workspace.root)
    (house.workspace.root / "mlflow.yaml").touch()
    monkeypatch.setattr(Tracker, "deliver_pending", lambda self: 0)
    monkeypatch.setattr(StoreConnection, "client", OfflineConnection.client)
    house.accuracies.update({0: 0.8, 1: 0.9})

    def command(*words):
        house.ran.clear()
        assert not app(["run", *words], standalone_mode=False)
        return capsys.readouterr().out

    return command


@pytest.fixture
def forecasts(monkeypatch):
    class Forecaster:
        asked: list[str] = []  # noqa: RUF012

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def forecast(self, config):
            self.asked.append(config.model.name)
            return TrainingForecast(850.4, 900.0, 32, False, 99.6, 61.0, 0.5, 30.0)

    monkeypatch.setattr(forecaster, "TrainingForecaster", Forecaster)
    return Forecaster


def rows_of(out: str) -> list[list[str]]:
    """The table, a row a line, its cells being what two blanks divide."""
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("model "))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[first + 1 : first + 6]]


def test_it_ends_in_a_table_of_each_seed_and_how_they_spread(run):
    out = run("all", *MODEL, "--seeds", "0-1")
    assert out.startswith("synthetic, 4 classes, 12 test images\n")
    assert rows_of(out) == [
        ["vanilla", "0", "80.00 %", "80.00 %", "1.0000"],
        ["vanilla", "1", "90.00 %", "90.00 %", "1.0000"],
        ["vanilla", "mean", "85.00 %", "85.00 %"],
        ["vanilla", "deviation", "7.07 points", "7.07 points"],
        ["vanilla", "95 % interval of the mean", "21.47 to 100.00 %", "21.47 to 100.00 %"],
    ]
    assert "vanilla, seed 1: train " in out
    assert "--seeds 0-1" in out.partition("next: ")[2]


def test_a_training_that_is_not_evaluated_has_its_validation_figures(run):
    rows = rows_of(run("train", *MODEL, "--seeds", "1"))
    assert rows[0] == ["vanilla", "1", "90.00 %", "-", "-"]
    assert rows[1:4] == [
        ["vanilla", "mean", "90.00 %", "-"],
        ["vanilla", "deviation", "-", "-"],
        ["vanilla", "95 % interval of the mean", "-", "-"],
    ]


def test_in_json_each_seed_and_the_spread_of_each_model_are_there(run):
    content = json.loads(run("all", *MODEL, "-m", "small", "--seeds", "0,1", "--json"))
    assert [(one["model"], one["seed"]) for one in content["models"]] == [
        ("vanilla", 0), ("vanilla", 1), ("small", 0), ("small", 1),
    ]  # fmt: skip
    assert {"training", "evaluation", "comparison"} <= set(content["models"][1])
    vanilla, small = content["seeds"]
    assert (vanilla["model"], small["model"], vanilla["seeds"]) == ("vanilla", "small", [0, 1])
    assert vanilla["test_accuracy"]["mean"] == pytest.approx(0.85)
    assert set(vanilla["validation_accuracy"]) == {"count", "mean", "deviation", "low", "high"}


def test_without_seeds_nothing_of_it_is_shown(run):
    content = json.loads(run("all", *MODEL, "--json"))
    assert set(content) == {"models"}
    assert "seed" not in content["models"][0]


def test_a_dry_run_shows_each_seed_and_forecasts_each_model_once(house, run, forecasts):
    run("all", *MODEL, "--seeds", "1")
    forecasts.asked.clear()
    plan, forecast = run("all", *MODEL, "--seeds", "0-2", "--dry-run").split("forecast for this machine")
    [line] = [line for line in plan.splitlines() if line.startswith("vanilla, seed 1") and " train " in line]
    assert " skip " in line
    assert [line.partition("  ")[0] for line in forecast.splitlines() if line.startswith("vanilla")] == [
        "vanilla, seed 0",
        "vanilla, seed 2",
    ]
    assert forecasts.asked == ["vanilla"]
    content = json.loads(run("all", *MODEL, "--seeds", "0-2", "--dry-run", "--json"))["models"]
    assert [(one["seed"], "forecast" in one) for one in content] == [(0, True), (1, False), (2, True)]
    assert house.ran == []


def test_one_seed_and_several_are_not_given_together(house, run):
    with pytest.raises(ConfigError, match="--seed is one seed and --seeds are several"):
        run("all", *MODEL, "--seed", "1", "--seeds", "0-2")
    assert house.ran == []


def test_seeds_are_for_commands_that_train(house, run):
    with pytest.raises(ConfigError, match="--seeds are of trainings, and `prepare` needs none"):
        run("prepare", *MODEL, "--seeds", "0-2")


def test_a_seed_that_diverged_is_told_beside_the_others(house, run, capsys):
    house.errors[0] = TrainingDivergedError("the loss became nan")
    with pytest.raises(TrainingDivergedError):
        run("all", *MODEL, "--seeds", "0-1")
    said = capsys.readouterr()
    assert "warning: vanilla, seed 0: the loss became nan" in said.err
    assert "vanilla, seed 0: prepare 0.0 s, train failed" in said.out
    assert rows_of(said.out)[0][:3] == ["vanilla", "1", "90.00 %"]
    assert "next: " not in said.out
    house.errors[0] = TrainingDivergedError("the loss became nan")
    with pytest.raises(TrainingDivergedError):
        run("all", *MODEL, "--seeds", "0-1", "--json")
    assert json.loads(capsys.readouterr().out)["models"][0]["failure"] == "the loss became nan"


def test_what_was_trained_before_the_time_was_up_is_shown(house, run, capsys):
    house.errors[1] = BudgetExhaustedError("used up")
    with pytest.raises(BudgetExhaustedError):
        run("train", *MODEL, "--seeds", "0-1")
    out = capsys.readouterr().out
    assert rows_of(out)[0][:3] == ["vanilla", "0", "80.00 %"]
    assert "vanilla, seed 1: prepare up to date, train not done" in out


def test_nothing_is_shown_when_no_seed_was_trained(house, run, capsys):
    house.errors.update(dict.fromkeys((0, 1), TrainingDivergedError("nan")))
    with pytest.raises(TrainingDivergedError):
        run("train", *MODEL, "--seeds", "0-1")
    assert capsys.readouterr().out == ""
