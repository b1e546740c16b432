"""`seqpipe run` with stand-ins for the stages: what it decides, and what it shows."""

import json

import pytest
from offline_store import OfflineConnection

from pipeline.cli import capped_command
from pipeline.cli.commands import app
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere
from pipeline.config.resolution import resolve
from pipeline.errors import BudgetExhaustedError, ConfigError, MachineUnfitError, MemoryCapError
from pipeline.stages import register, train
from pipeline.stages.catalog import STAGES
from pipeline.stages.context import TrainingNode
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import Tracker
from pipeline.training import forecaster
from pipeline.training.forecaster import TrainingForecast
from tuning.cluster.join_code import JoinCode

MODEL = ("-m", "vanilla", "--set", "data.source=synthetic")


@pytest.fixture
def run(house, monkeypatch, capsys):
    """Runs the command in the house; its exit code and what it wrote to stdout."""
    monkeypatch.chdir(house.workspace.root)
    (house.workspace.root / "mlflow.yaml").touch()
    monkeypatch.setattr(Tracker, "deliver_pending", lambda self: 0)
    monkeypatch.setattr(StoreConnection, "client", OfflineConnection.client)

    def command(*words):
        house.ran.clear()
        code = app(["run", *words], standalone_mode=False, obj="words of this command")
        return code, capsys.readouterr().out

    return command


@pytest.fixture(autouse=True)
def forecasts(monkeypatch):
    """The forecasts of trainings: of each what it is asked for, or why there is none; no process is started."""

    class Forecaster:
        fails: Exception | None = None
        asked: list[str] = []  # noqa: RUF012

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def forecast(self, config):
            self.asked.append(config.model.name)
            if self.fails:
                raise self.fails
            return TrainingForecast(850.4, 900.0, 32, False, 99.6, 61.0, 0.5, 30.0)

    monkeypatch.setattr(forecaster, "TrainingForecaster", Forecaster)
    return Forecaster


@pytest.fixture
def capped(monkeypatch):
    """The calls for another process; none is started."""
    calls = []

    def run_again(cap_mb, run_words, *, first=None):
        calls.append((cap_mb, run_words, first is not None))
        return 7

    monkeypatch.setattr(capped_command, "run_again_under", run_again)
    return calls


def test_a_dry_run_shows_the_plan_and_runs_nothing(house, run):
    code, out = run("train", *MODEL, "--dry-run")
    assert not code
    plan, forecast = out.split("forecast for this machine")
    assert [line.split() for line in plan.splitlines()[1:]] == [
        ["vanilla", stage, "run", "missing:", "not", "made", "yet"] for stage in ("prepare", "train")
    ]
    [line] = [line for line in forecast.splitlines() if line.startswith("vanilla")]
    for cell in ("850 MB", "900 MB", "32", "1 min 1 s for ", "100", "0.5", "30 MB"):
        assert cell in line
    assert house.ran == []
    assert not house.workspace.hidden.exists()


def test_a_dry_run_in_json_has_a_decision_for_each_stage_of_each_model(run):
    _, out = run("train", *MODEL, "-m", "small", "--dry-run", "--json")
    [vanilla, small] = json.loads(out)["models"]
    assert (vanilla["model"], small["model"]) == ("vanilla", "small")
    assert set(vanilla["stages"]["train"]) == {"would", "state", "why", "fingerprint"}
    assert [one["would"] for one in small["stages"].values()] == ["skip", "run"]
    assert vanilla["forecast"] == {
        "peak_mb": 850.4, "limit_mb": 900.0, "micro_batch_size": 32, "checkpointing": False, "images_per_s": 99.6,
        "seconds": 61.0, "pflop": 0.5, "disk_mb": 30.0, "fits": True,
    }  # fmt: skip


def test_a_training_that_would_not_run_is_not_forecast(run, forecasts):
    assert "forecast" not in json.loads(run("prepare", *MODEL, "--dry-run", "--json")[1])["models"][0]
    run("train", *MODEL)
    out = run("all", *MODEL, "-m", "small", "--dry-run", "--json")[1]
    assert ["forecast" in model for model in json.loads(out)["models"]] == [False, True]
    run("all", *MODEL, "--dry-run")
    assert forecasts.asked == ["small"]


def test_a_forecast_that_fails_leaves_the_dry_run_working(house, monkeypatch, capsys, forecasts):
    monkeypatch.chdir(house.workspace.root)
    (house.workspace.root / "mlflow.yaml").touch()
    forecasts.fails = MachineUnfitError("no answer")
    assert not app(["run", "train", *MODEL, "--dry-run"], standalone_mode=False)
    said = capsys.readouterr()
    assert "no forecast: no answer" in said.err
    assert "missing: not made yet" in said.out
    assert "forecast for this machine" not in said.out


def test_it_runs_through_the_stage_that_is_named_and_says_what_was_done(house, run):
    _, out = run("train", *MODEL)
    assert house.ran == ["prepare", "train"]
    assert out.startswith("vanilla: prepare ")
    assert "next: " in out
    assert "run all --model vanilla --set data.source=synthetic" in out
    run("train", *MODEL, "--fresh")
    assert house.ran == ["train"]
    run("all", *MODEL, "--fresh")
    assert house.ran == list(STAGES)
    _, out = run("all", *MODEL)
    assert "nothing to do, every stage is up to date" in out


def test_what_a_run_made_is_in_its_json(run):
    _, out = run("all", *MODEL, "--json")
    [model] = json.loads(out)["models"]
    assert set(model) == {
        "model", "stages", "data", "training", "run_id", "test_accuracy", "evaluation", "comparison", "registered",
    }  # fmt: skip
    assert set(model["stages"]["train"]) == {"status", "why", "fingerprint", "seconds"}


def test_a_recipe_is_trained_under_the_settings_that_are_given(run):
    epochs = resolve("vanilla", flags={"recipe": "best"}).train.epochs
    for words, expected in ((("--recipe", "best"), epochs), (("--recipe", "best", "--set", "train.epochs=2"), 2)):
        [model] = json.loads(run("train", *MODEL, *words, "--json")[1])["models"]
        assert model["training"]["epochs"] == expected
    assert "--recipe best" in run("train", *MODEL, "--recipe", "best")[1]


def test_a_model_that_is_named_twice_is_run_once(house, run):
    _, out = run("prepare", *MODEL, "-m", "vanilla", "--json")
    assert len(json.loads(out)["models"]) == 1


@pytest.mark.parametrize(("error", "how"), [(ConfigError("no"), "failed"), (BudgetExhaustedError("no"), "not done")])
def test_figures_that_were_reached_are_shown_when_a_later_stage_ends_it(house, run, monkeypatch, capsys, error, how):
    def fail(*_):
        raise error

    monkeypatch.setattr(register, "register", fail)
    with pytest.raises(type(error)):
        run("all", *MODEL)
    out = capsys.readouterr().out
    assert "95 % interval" in out
    assert f"register {how}" in out
    assert "next: " not in out


def test_nothing_is_shown_of_a_run_that_ends_before_there_are_figures(run, monkeypatch, capsys):
    def fail(*_):
        raise ConfigError("no")

    monkeypatch.setattr(train, "train", fail)
    with pytest.raises(ConfigError):
        run("all", *MODEL)
    assert capsys.readouterr().out == ""


def test_under_a_cap_the_command_runs_again_with_a_model_loaded_where_one_is_needed(house, run, capped):
    assert run("prepare", *MODEL, "--max-memory-mb", "900")[0] == 7
    assert run("train", *MODEL, "--max-memory-mb", "900")[0] == 7
    assert capped == [(900, "words of this command", False), (900, "words of this command", True)]
    assert house.ran == []


def test_several_seeds_share_the_process_under_the_cap(run, capped):
    run("train", *MODEL, "--seeds", "0-1", "--max-memory-mb", "900")
    assert len(capped) == 1


def test_with_nothing_to_do_no_process_is_started_for_the_cap(house, run, capped):
    run("all", *MODEL)
    assert "nothing to do" in run("all", *MODEL, "--max-memory-mb", "900")[1]
    assert capped == []


def test_the_capped_command_itself_runs_the_stages(house, run, capped, monkeypatch):
    monkeypatch.setattr(capped_command, "is_inside", lambda: True)
    run("prepare", *MODEL, "--max-memory-mb", "900")
    assert (house.ran, capped) == (["prepare"], [])


def test_the_runs_of_a_command_that_was_killed_at_its_cap_are_closed(run, monkeypatch):
    closed = []

    def killed(*_, **__):
        raise MemoryCapError("at its cap")

    monkeypatch.setattr(capped_command, "run_again_under", killed)
    monkeypatch.setattr(Tracker, "close_dead", lambda self, resumed=(): closed.append(resumed))
    with pytest.raises(MemoryCapError):
        run("train", *MODEL, "--max-memory-mb", "900")
    assert closed == [()]


def test_a_time_that_is_used_up_ends_it_and_says_which_command_goes_on(house, run):
    with pytest.raises(BudgetExhaustedError, match="the same command without --fresh resumes"):
        run("all", *MODEL, "--fresh", "--set", "compute.max_time_s=1e-9")
    assert house.ran == []


@pytest.fixture
def cluster(house):
    """A cluster that runs from the workspace, whose nodes nobody asks."""
    folder = ClusterFolder(house.workspace.cluster)
    code = JoinCode.new("00000")
    with folder.held():
        folder.write(ClusterAccess(HeadHere("192.168.1.10", 6480, "A", 1), code))
        yield code


@pytest.fixture
def trained_on(monkeypatch):
    """The nodes that the trainings of the stand-in were given."""
    nodes = []
    stand_in = train.train

    def note(config, prepared, folder, context):
        nodes.append(context.node)
        return stand_in(config, prepared, folder, context)

    monkeypatch.setattr(train, "train", note)
    return nodes


def test_a_training_is_sent_to_the_node_that_is_named(house, run, cluster, trained_on, capped):
    run("all", *MODEL, "--on", "B", "--max-memory-mb", "900")
    assert trained_on == [TrainingNode("B", "192.168.1.10:6480", cluster.token)]
    assert house.ran == list(STAGES), "the other stages run here"
    assert capped == [], "the cap is for the training there"


def test_each_of_several_seeds_is_sent_to_the_node_that_is_named(run, cluster, trained_on):
    run("train", *MODEL, "--on", "B", "--seeds", "0-1")
    assert [node.name for node in trained_on] == ["B", "B"]


def test_without_a_name_a_training_stays_here_cluster_or_not(run, cluster, trained_on):
    run("train", *MODEL)
    assert trained_on == [None]


def test_without_a_cluster_there_is_no_node_to_train_on(house, run):
    with pytest.raises(MachineUnfitError, match=r"so there is no B to train on; start one with `seqpipe cluster up`"):
        run("train", *MODEL, "--on", "B")
    assert house.ran == []


def test_a_stage_before_the_training_cannot_be_sent(house, run, cluster):
    with pytest.raises(ConfigError, match="--on says where to train, and `prepare` does not"):
        run("prepare", *MODEL, "--on", "B")


def test_what_another_machine_needs_is_not_forecast_from_this_one(run, cluster, forecasts):
    forecasts.asked.clear()
    assert "train" in run("train", *MODEL, "--on", "B", "--dry-run")[1]
    assert forecasts.asked == []
