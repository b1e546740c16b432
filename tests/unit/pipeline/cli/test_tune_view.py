"""What `seqpipe tune` shows at its end, and in a dry run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledgers import end, row

from pipeline.cli.tune_view import SHOWN, show_outcome, show_survey
from pipeline.config.resolution import resolve
from pipeline.search.report import SearchReport
from pipeline.search.request import Request
from pipeline.search.run import SearchOutcome, Survey
from pipeline.search.space_forecast import TrialForecast
from pipeline.search.store import SearchFolder, SearchStatus
from pipeline.tracking.delivery import RunIdentity
from pipeline.training.forecaster import TrainingForecast
from pipeline.workspace.paths import Workspace
from tuning.capacity import Capacity, Node
from tuning.search import SearchResult
from tuning.space import Space
from tuning.traffic import Sent

CAPACITY = Capacity(900, 3, (Node("one", 4, 5000), Node("two", 2, 3000)), (2, 1), 2.0)
SPACE = Space.parse({"train.learning_rate": {"uniform": [0.001, 0.01]}})
TRACKER = SimpleNamespace(run_id=lambda run: None, location=lambda run: f"where {run.name} is")
DEFAULT = {"train.learning_rate": 0.001}


def rows(count):
    ended = [row(number, {"train.learning_rate": 0.001 * (number + 1)}, end(value=0.5)) for number in range(count)]
    return (*ended[:-1], replace(ended[-1], finish=end("failed", error="ValueError: no")))


@pytest.fixture
def folder(tmp_path):
    return SearchFolder.of(Workspace(tmp_path), resolve("small"), SPACE)


@pytest.fixture
def outcome(folder):
    found = rows(3)
    result = SearchResult(found, found[0], "finished", 3, 5_000_000, 850.0, CAPACITY)
    report = SearchReport(Path("best.yaml").absolute(), (), {"train.learning_rate": 0.75, "model.hidden": 0.25})
    return SearchOutcome(folder, DEFAULT, RunIdentity("key", "the search"), result, report, None)


def shown(capsys, *what):
    show_outcome(*what, TRACKER, False)
    return capsys.readouterr().out


def test_the_trials_are_a_table_the_best_first_and_the_next_command_follows(outcome, capsys):
    text = shown(capsys, outcome)
    assert f"search {outcome.search.fingerprint}: small, 3 of 3 trials (2 completed, 1 failed)" in text
    lines = [line.split() for line in text.splitlines()]
    assert [line[:2] for line in lines if line and line[0].isdigit()] == [
        ["0", "completed"], ["1", "completed"], ["2", "failed"]
    ]  # fmt: skip
    assert "the default config" in text
    assert "learning_rate 0.002" in text
    assert "the first of 1 failures: ValueError: no" in text
    assert "as far as 2 completed trials tell: train.learning_rate 75 %, model.hidden 25 %" in text
    assert (
        "memory beside the trials: at most 850 MB; 5 MB of checkpoints that nothing needs any more were deleted"
        in text
    )
    assert "  run key: where the search is" in text
    assert "run all --config" in text
    assert "nothing to do" not in text
    assert "all 3 trials" not in text


def test_of_many_trials_the_file_is_named(outcome, capsys):
    many = rows(SHOWN + 2)
    text = shown(capsys, replace(outcome, result=replace(outcome.result, rows=many, target=20)))
    assert len([line for line in text.splitlines() if line[:1].isdigit()]) == SHOWN
    assert f"all {SHOWN + 2} trials: {outcome.search.path / 'trials.csv'}" in text


def test_nothing_to_do_and_an_exhausted_space_are_said(outcome, capsys):
    idle = replace(outcome.result, capacity=None)
    text = shown(capsys, replace(outcome, result=idle))
    assert text.startswith("nothing to do: the search has all of its trials")
    assert "memory beside the trials" not in text
    text = shown(capsys, replace(outcome, result=replace(idle, ended="exhausted")))
    assert "every configuration of the space was tried" in text
    assert "nothing to do" not in text


def test_an_unfinished_trial_has_no_figures(outcome, capsys):
    unfinished = (row(0, DEFAULT, curve=[0.4]),)
    text = shown(capsys, replace(outcome, result=replace(outcome.result, rows=unfinished, best=None)))
    [line] = [line.split() for line in text.splitlines() if line.startswith("0")]
    assert line[:6] == ["0", "unfinished", "-", "1", "-", "-"]


def test_as_json_the_outcome_has_its_keys(outcome, capsys):
    show_outcome(outcome, TRACKER, True)
    told = json.loads(capsys.readouterr().out)
    assert list(told) == [
        "search", "folder", "model", "ended", "ran", "target", "trials", "best", "best_config", "importances",
        "sent", "memory_beside_trials_mb", "freed_bytes", "plan", "run_id",
    ]  # fmt: skip
    assert (told["ended"], told["ran"], told["best"]["trial"], len(told["trials"])) == ("finished", True, 0, 3)
    assert told["sent"] == {}
    assert told["plan"]["nodes"][1] == {
        "name": "two", "cores": 2, "memory_mb": 3000, "fits": 1, "precision": None, "kernel": None, "why_not": None,
    }  # fmt: skip
    assert (told["plan"]["trial_memory_mb"], told["plan"]["concurrency"], told["plan"]["cores_per_trial"]) == (
        900,
        3,
        2,
    )
    show_outcome(replace(outcome, left=KeyboardInterrupt()), TRACKER, True)
    assert json.loads(capsys.readouterr().out)["ended"] == "interrupted"


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (None, "not started yet; 30 trials in all"),
        (SearchStatus(20, 20, 12, 0.5), "12 of 20 trials, best 50.00 %; 30 trials in all"),
    ],
)
def test_a_dry_run_shows_the_space_the_nodes_and_the_trials(folder, capsys, status, line):
    request = Request(resolve("small"), SPACE, trials=30)
    show_survey(Survey(request, folder, status, CAPACITY), False)
    text = capsys.readouterr().out
    assert "0.001 to 0.01" in text
    assert "900 MB for each trial, 3 at once" in text
    assert ["one", "4", "5000", "MB", "2"] in [each.split() for each in text.splitlines()]
    assert text.splitlines()[-1] == line


UNLIKE = Capacity(
    900,
    3,
    (
        Node("desk", 4, 5000, "1", facts={"precision": "bf16", "kernel": "native"}),
        Node("hp", 2, 3000, "2", facts={"precision": "fp32", "kernel": "eager"}),
        Node("old", 2, 3000, "3", why_not="it leaves the cluster", facts={"precision": "fp32", "kernel": "eager"}),
    ),
    (2, 1, 0),
    2,
)


def surveyed(folder, capsys, capacity, *words, as_json=False):
    request = Request(resolve("small", sets=words), SPACE, trials=30)
    show_survey(Survey(request, folder, None, capacity), as_json)
    return capsys.readouterr().out


def test_a_dry_run_on_a_cluster_shows_what_each_node_computes_with(folder, capsys):
    lines = surveyed(folder, capsys, UNLIKE).splitlines()
    cells = [line.split() for line in lines]
    assert ["desk", "4", "5000", "MB", "bf16", "native", "2"] in cells
    assert ["hp", "2", "3000", "MB", "fp32", "eager", "1"] in cells
    assert ["old", "2", "3000", "MB", "fp32", "eager", "0:", "it", "leaves", "the", "cluster"] in cells
    [said] = [line for line in lines if "precision" in line and "each node" in line]
    assert "(bf16 on desk, fp32 on hp)" in said
    assert "--set compute.precision=fp32" in said
    told = json.loads(surveyed(folder, capsys, UNLIKE, as_json=True))["plan"]["nodes"]
    assert [(node["precision"], node["kernel"], node["fits"]) for node in told[:2]] == [
        ("bf16", "native", 2),
        ("fp32", "eager", 1),
    ]
    assert told[2]["why_not"] == "it leaves the cluster"


def test_a_search_held_to_one_precision_has_it_on_every_node_and_nothing_to_tell(folder, capsys):
    text = surveyed(folder, capsys, UNLIKE, "compute.precision=fp32")
    assert "each node trains" not in text
    assert ["desk", "4", "5000", "MB", "fp32", "native", "2"] in [line.split() for line in text.splitlines()]


def test_nodes_that_agree_or_get_no_trial_are_no_reason_to_speak_of_precision(folder, capsys):
    alike = replace(UNLIKE, fits=(2, 0, 0))
    assert "each node trains" not in surveyed(folder, capsys, alike)


def test_what_went_over_the_network_is_shown_by_node(outcome, capsys):
    sent = {"hp": Sent(61_400_000, 12_000_000, 140_000_000)}
    text = shown(capsys, replace(outcome, result=replace(outcome.result, sent=sent)))
    assert "sent to hp: 61 MB of prepared data, 12 MB of checkpoints; 140 MB of checkpoints came from there" in text
    show_outcome(replace(outcome, result=replace(outcome.result, sent=sent)), TRACKER, True)
    told = json.loads(capsys.readouterr().out)["sent"]
    assert told == {"hp": {"shared_bytes": 61400000, "checkpoint_bytes": 12000000, "received_bytes": 140000000}}


def test_as_json_a_dry_run_has_its_keys(folder, capsys):
    request = Request(resolve("small"), SPACE, trials=30)
    show_survey(Survey(request, folder, SearchStatus(20, 20, 12, 0.5), CAPACITY), True)
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["search", "model", "target", "finished", "space", "default", "plan", "forecasts"]
    assert told["forecasts"] == {}
    assert (told["target"], told["finished"], told["space"]) == (30, 12, SPACE.to_json())


FORECASTS = [
    TrialForecast(
        name, {"train.learning_rate": 0.001}, TrainingForecast(peak, 900.0, images, True, speed, seconds, 0.5, 30.0)
    )
    for name, peak, images, speed, seconds in (("default", 850.4, 32, 99.6, 61.0), ("largest", 950.0, 1, None, None))
]


def test_a_dry_run_shows_the_forecast_trials(folder, capsys):
    request = Request(resolve("small"), SPACE, trials=30)
    show_survey(Survey(request, folder, None, CAPACITY, FORECASTS), False)
    text = capsys.readouterr().out
    epochs = request.config.train.epochs
    [default] = [line for line in text.splitlines() if line.startswith("default ")]
    for cell in (
        "850 MB",
        "900 MB",
        "32, activation checkpointing",
        f"1 min 1 s for {epochs} epochs",
        "100",
        "30 MB",
    ):
        assert cell in default
    [largest] = [line for line in text.splitlines() if line.startswith("largest ")]
    assert "950 MB: does not fit" in largest
    show_survey(Survey(request, folder, None, CAPACITY, FORECASTS), True)
    told = json.loads(capsys.readouterr().out)["forecasts"]
    assert list(told) == ["default", "largest"]
    assert told["default"]["config"] == {"train.learning_rate": 0.001}
    assert (told["default"]["peak_mb"], told["default"]["fits"], told["largest"]["fits"]) == (850.4, True, False)


def test_a_dry_run_without_a_forecast_says_why(folder, capsys):
    request = Request(resolve("small"), SPACE, trials=30)
    show_survey(Survey(request, folder, None, CAPACITY, (), "no answer"), False)
    said = capsys.readouterr()
    assert "no forecast: no answer" in said.err
    assert "forecast for this machine" not in said.out
    assert said.out.splitlines()[-1] == "not started yet; 30 trials in all"
