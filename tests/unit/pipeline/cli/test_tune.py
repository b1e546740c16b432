"""`seqpipe tune`: which request its flags make, and how the command ends."""

import pytest
from typer.testing import CliRunner

from pipeline.cli import tune as command
from pipeline.cli import tune_view
from pipeline.cli.commands import app
from pipeline.cluster import place
from pipeline.cluster.place import Place
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError, MemoryCapError


class Outcome:
    error = None


@pytest.fixture
def called(monkeypatch):
    """What the command hands on: a request to search or to survey, and what it shows."""
    calls = {}

    def search(request, note):
        calls.update(searched=request, note=note)
        return Outcome, "tracker"

    monkeypatch.setattr(command, "_search", search)
    monkeypatch.setattr(place, "place_of_search", lambda workspace: calls.get("place", Place()))
    monkeypatch.setattr(command, "_survey", lambda request: calls.update(surveyed=request) or "survey")
    monkeypatch.setattr(tune_view, "show_outcome", lambda *shown: calls.update(shown=shown))
    monkeypatch.setattr(tune_view, "show_survey", lambda *shown: calls.update(shown=shown))
    return calls


def tune(*words):
    return CliRunner().invoke(app, ["tune", *words], catch_exceptions=False)


def test_without_flags_it_searches_small_with_every_default(called):
    assert tune().exit_code == 0
    request = called["searched"]
    assert request.config.model.name == "small"
    assert (request.trials, request.extend, request.fresh, request.cap_mb, request.concurrency) == (
        None,
        0,
        False,
        None,
        None,
    )
    assert (request.searcher, request.scheduler, request.address, request.max_time_s) == (
        "optuna",
        "asha",
        None,
        None,
    )
    assert called["shown"] == (Outcome, "tracker", False)
    assert not request.may_sleep


def test_a_recipe_is_what_trial_0_is_trained_with(called):
    tune("--recipe", "best", "-m", "vanilla")
    assert called["searched"].config == resolve("vanilla", flags={"recipe": "best"})
    assert called["searched"].config.train != resolve("vanilla").train


def test_every_flag_is_part_of_the_request(called, tmp_path):
    (tmp_path / "space.yaml").write_text("model.hidden: {choice: [8, 16]}")
    tune(
        "-m", "vanilla", "--trials", "7", "--trial-memory-mb", "900", "--max-time", "15m", "--concurrency", "3",
        "--reserve-mb", "700",
        "--searcher", "random", "--scheduler", "none", "--seed", "4", "--extend", "2", "--fresh", "--address", "a:1",
        "--may-sleep",
        "--space", str(tmp_path / "space.yaml"), "--set", "train.epochs=5", "--device", "cpu", "--json",
    )  # fmt: skip
    request = called["searched"]
    assert (request.config.model.name, request.config.seed, request.config.train.epochs) == ("vanilla", 4, 5)
    assert request.config.compute.device == "cpu"
    assert list(request.space) == ["model.hidden"]
    assert (request.trials, request.extend, request.fresh, request.cap_mb, request.concurrency) == (
        7,
        2,
        True,
        900,
        3,
    )
    assert request.reserve_mb == 700
    assert request.may_sleep
    assert (request.searcher, request.scheduler, request.address, request.max_time_s) == (
        "random",
        "none",
        "a:1",
        900,
    )
    assert called["shown"] == (Outcome, "tracker", True)


def test_the_time_limit_is_the_flags_or_the_configs_and_stays_out_of_the_best_config(called):
    tune("--set", "compute.max_time_s=60")
    assert called["searched"].max_time_s == 60
    tune("--max-time", "90s")
    assert called["searched"].max_time_s == 90
    assert called["searched"].config.compute.max_time_s is None


def test_the_cluster_of_the_workspace_is_used_by_itself(called):
    called["place"] = Place("10.0.0.2:6480", "secret", "a note")
    assert tune().exit_code == 0
    request = called["searched"]
    assert (request.address, request.token, called["note"]) == ("10.0.0.2:6480", "secret", "a note")
    assert "secret" not in repr(request)
    assert request.settings(None).token == "secret"


@pytest.mark.parametrize(("words", "address"), [(["--local"], None), (["--address", "a:1"], "a:1")])
def test_local_and_an_address_leave_it_alone(called, words, address):
    called["place"] = Place("10.0.0.2:6480", "secret", "a note")
    tune(*words)
    request = called["searched"]
    assert (request.address, request.token, called["note"]) == (address, None, "")


def test_local_and_an_address_together_are_refused(called):
    with pytest.raises(ConfigError, match="give one of them"):
        tune("--local", "--address", "a:1")


def test_a_dry_run_tells_the_note_too(called):
    called["place"] = Place(note="the cluster ended")
    assert "the cluster ended" in tune("--dry-run").output


def test_a_dry_run_shows_a_survey_and_does_not_search(called):
    tune("--dry-run", "--json")
    assert called["shown"] == ("survey", True)
    assert "searched" not in called


def test_two_models_are_refused(called):
    with pytest.raises(ConfigError, match="one search is of one model"):
        tune("-m", "small", "-m", "medium")
    assert "searched" not in called


def test_results_are_shown_before_the_command_ends_with_its_error(called, monkeypatch):
    monkeypatch.setattr(Outcome, "error", MemoryCapError("every trial ran into its memory cap"))
    with pytest.raises(MemoryCapError):
        tune()
    assert called["shown"][0] is Outcome
