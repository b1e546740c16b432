"""`seqpipe tune` as a user meets it: made-up images, tiny models, a real Ray."""

import json
import os
import sqlite3
import subprocess
from collections import Counter
from dataclasses import dataclass

import pytest
from product import SEQPIPE, Done, Place, set_traps, snapshot, sprung, tiny

from tuning import ledger

SPACE = "model.hidden: {choice: [8, 16, 4096]}\n"  # the last holds more than half a gigabyte in its weights alone
WORDS = [*tiny("vanilla", train__epochs=2), "--space", "space.yaml"]
SEARCH = ["tune", *WORDS, "--trial-memory-mb", "450", "--scheduler", "none"]


@pytest.fixture
def place(place):
    (place.root / "space.yaml").write_text(SPACE)
    return place


@dataclass(frozen=True)
class Searched:
    """A workspace without the test split; a search of two trials there while MLflow was away, and one trial more.

    The first was started by `uv run`, as far as Ray can see. The folder holds modules that nobody should import.
    """

    place: Place
    first: Done
    more: Done


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("searched"))
    (place.root / "space.yaml").write_text(SPACE)
    assert place.run("run", "prepare", *tiny()).code == 0
    for path in place.whole("prepare").glob("test_*"):
        path.unlink()
    set_traps(place.root)
    (place.root / "run").write_text(f'"{SEQPIPE}" "$@"\nexit $?\n')
    uv_run = subprocess.run(
        ["uv", "run", *SEARCH, "--trials", "2"],
        executable="/bin/sh", cwd=place.root, env=place.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first = Done(uv_run.returncode, uv_run.stdout, uv_run.stderr, 0.0)
    place.set(MLFLOW_TRACKING_URI=None)
    return Searched(place, first, place.run(*SEARCH, "--extend", "1"))


def folder(place):
    [found] = (place.root / ".seqpipe" / "searches").iterdir()
    return found


def runs(place):
    """Every run of the store: its name, status, parent, tags, parameters and last figures."""
    connection = sqlite3.connect(place.root / "mlflow.db")
    try:
        found = {
            uuid: {"name": name, "status": status}
            for uuid, name, status in connection.execute("SELECT run_uuid, name, status FROM runs")
        }
        for table in ("tags", "params", "latest_metrics"):
            for uuid in found:
                rows = connection.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", [uuid])
                found[uuid][table] = dict(rows.fetchall())
        return found
    finally:
        connection.close()


def below(found, uuid):
    return {one["name"]: one for one in found.values() if one["tags"].get("mlflow.parentRunId") == uuid}


def test_a_search_ends_with_a_table_and_every_hog_at_its_cap(searched):
    place, done = searched.place, searched.more
    assert (searched.first.code, done.code) == (0, 0), searched.first.err + done.err
    records = json.loads((folder(place) / "trials.json").read_bytes())
    assert records[0]["config"]["model.hidden"] == 16, "trial 0 is the default config"
    outcomes = {each["config"]["model.hidden"]: each["outcome"] for each in records}
    assert outcomes == {8: "completed", 16: "completed", 4096: "memory_cap"}
    assert all(each["memory_cap_mb"] == 450 for each in records)
    assert "3 of 3 trials (2 completed, 1 memory_cap)" in done.out
    assert f"best config: {folder(place) / 'best.yaml'}" in done.out
    assert "memory beside the trials: at most " in done.out
    for one, expected in ((searched.first, ["0", "1"]), (done, ["2"])):
        told = [line.split() for line in one.err.splitlines() if line.startswith("  trial ")]
        assert sorted(line[1] for line in told) == expected, "one plain line for each finished trial"
        assert "Traceback" not in one.err


def test_neither_ray_nor_a_trial_takes_anything_from_the_working_folder(searched):
    assert searched.first.code == 0, "a worker that `uv run` should have started did not come"
    assert sprung(searched.place.root) == []


def test_an_outage_of_mlflow_is_said_once_and_stops_nothing(searched):
    assert searched.first.err.count("cannot be reached") == 1
    assert "2 of 2 trials" in searched.first.out
    assert "1 more: 2 of 2 trials" in searched.more.err


def test_a_trials_figures_are_those_of_the_plain_training(searched, tmp_path):
    place = searched.place
    plain = Place(tmp_path / "plain")
    assert plain.run("run", "train", *tiny("vanilla", train__epochs=2)).code == 0
    expected = json.loads((plain.whole("train") / "epochs.json").read_bytes())
    reports = ledger.read(folder(place)).rows[0].reports
    assert [each.value for each in reports] == [row["validation/accuracy"] for row in expected]
    assert [each.metrics["train/loss"] for each in reports] == [row["train/loss"] for row in expected]


def test_mlflow_has_one_run_for_the_search_and_one_below_it_for_each_trial(searched):
    place = searched.place
    found = runs(place)
    [parent] = [uuid for uuid, one in found.items() if one["tags"].get("seqpipe.kind") == "search"]
    search, trials = found[parent], below(found, parent)
    assert sorted(trials) == ["trial 000", "trial 001", "trial 002"]
    assert Counter(one["tags"]["seqpipe.outcome"] for one in trials.values()) == {"completed": 2, "memory_cap": 1}
    assert trials["trial 000"]["params"]["model.hidden"] == "16"
    assert {"best/validation_accuracy", "peak_memory_mb", "train/loss"} <= set(trials["trial 000"]["latest_metrics"])
    assert trials["trial 000"]["tags"]["seqpipe.node"] == os.uname().nodename
    assert trials["trial 000"]["tags"]["mlflow.source.name"] == "seqpipe tune"
    assert {one["status"] for one in trials.values()} == {"FINISHED", "KILLED"}
    assert search["status"] == "FINISHED"
    best = max(one["latest_metrics"].get("best/validation_accuracy", 0) for one in trials.values())
    assert search["latest_metrics"]["best/validation_accuracy"] == best
    assert len(found) == 4, "what was searched while it was away is in it once"
    shown = {path.name for path in (place.root / "mlartifacts" / parent).rglob("*") if path.is_file()}
    assert {"best.yaml", "trials.csv", "trials.json", "history.png"} <= shown
    assert "best.yaml" in search["tags"]["mlflow.note.content"]


def test_the_best_config_is_one_that_run_takes(searched):
    place = searched.place
    done = place.run("run", "all", "--config", str(folder(place) / "best.yaml"), "--dry-run", "--json")
    assert done.code == 0, done.err
    [model] = json.loads(done.out)["models"]
    assert model["stages"]["prepare"]["would"] == "skip", "on the same data"
    assert model["stages"]["train"]["would"] == "run"


def test_repeated_there_is_nothing_to_do_and_other_flags_are_no_other_search(searched):
    place = searched.place
    before, stored = snapshot(place.root / ".seqpipe" / "runs"), runs(place)
    written = (folder(place) / "ledger.jsonl").read_bytes()
    done = place.run("tune", *WORDS, "--searcher", "random", "--concurrency", "1")  # as many trials as it has
    assert done.code == 0, done.err
    assert "nothing to do" in done.out
    assert done.err == ""
    assert done.seconds < 5, "no Ray was started"
    assert (folder(place) / "ledger.jsonl").read_bytes() == written
    assert snapshot(place.root / ".seqpipe" / "runs") == before
    assert runs(place) == stored


def test_status_shows_the_search_and_gc_keeps_it(searched):
    place = searched.place
    (one,) = json.loads(place.run("status", "-m", "vanilla", "--json").out)["searches"]
    assert one["search"] == folder(place).name
    assert (one["state"], one["finished"], one["target"]) == ("finished", 3, 3)
    assert json.loads(place.run("status", "-m", "small", "--json").out)["searches"] == []
    assert "3 of 3 trials" in place.run("status").out
    kept = [one for one in json.loads(place.run("gc", "--dry-run", "--json").out)["items"] if one["what"] == "search"]
    assert [one["goes"] for one in kept] == [False]


def test_a_search_with_all_of_its_space_tried_cannot_be_extended_and_says_so(searched):
    place = searched.place
    done = place.run("tune", *WORDS, "--extend", "2", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["ended"], len(told["trials"]), told["ran"]) == ("exhausted", 3, False)
    assert "every configuration of the space was tried" in place.run("tune", *WORDS).out


def test_a_search_with_all_of_its_trials_asks_nothing_of_the_machine(searched):
    done = searched.place.run("tune", *WORDS, "--trial-memory-mb", "99000000")
    assert done.code == 0, done.err
    assert "nothing to do" in done.out or "every configuration" in done.out


def test_begun_anew_and_refused_the_search_before_stays(searched):
    place = searched.place
    before = snapshot(folder(place))
    for words in (["--trial-memory-mb", "60"], ["--trial-memory-mb", "99000000"]):
        done = place.run("tune", *WORDS, "--fresh", *words)
        assert done.code == 6, done.err
        assert snapshot(folder(place)) == before
    assert not list((place.root / ".seqpipe" / "set-aside").iterdir())


def test_another_space_is_another_search_and_the_one_before_is_named_and_kept(searched):
    place = searched.place
    before = folder(place)
    (place.root / "other.yaml").write_text("model.hidden: {choice: [8, 12]}\n")
    words = [*tiny("vanilla", train__epochs=2), "--space", "other.yaml"]
    refused = place.run("tune", *words, "--extend", "1")
    assert refused.code == 2
    assert f"there is no search with these settings to extend; the one before, {before.name} (" in refused.errors[0]
    assert "other settings: space.model.hidden" in refused.errors[0]
    assert folder(place) == before, "and nothing was begun"


def test_a_search_in_which_every_trial_is_a_hog_ends_with_5_and_says_what_to_do(place):
    (place.root / "space.yaml").write_text("model.hidden: {choice: [4096, 4092]}\n")
    words = ["tune", *tiny("vanilla", train__epochs=1, model__hidden=4096), "--space", "space.yaml", "--trials", "2"]
    for _ in range(2):  # repeated, it is the same answer
        done = place.run(*words, "--trial-memory-mb", "450")
        assert done.code == 5, done.err
        assert "every trial ran into its memory cap (450 MB)" in done.errors[-1]
        assert "--trial-memory-mb" in done.errors[-1]
    assert "2 of 2 trials (2 memory_cap)" in done.out


def test_a_dry_run_shows_space_and_nodes_and_changes_nothing(place):
    before = snapshot(place.root)
    done = place.run("tune", *tiny("small"), "--trial-memory-mb", "500", "--dry-run")
    assert done.code == 0, done.err
    assert "train.learning_rate" in done.out
    assert "500 MB for each trial" in done.out
    assert os.uname().nodename in done.out
    assert "forecast for this machine" in done.out
    told = json.loads(place.run("tune", *WORDS, "--trial-memory-mb", "450", "--dry-run", "--json").out)
    assert (told["target"], told["finished"]) == (30, 0)
    forecasts = told["forecasts"]
    assert [one["config"]["model.hidden"] for one in forecasts.values()] == [16, 8, 4096]
    assert [one["fits"] for one in forecasts.values()] == [True, True, False]
    assert forecasts["default"]["images_per_s"] > 0
    assert forecasts["largest"]["seconds"] is None
    assert told["plan"]["nodes"][0]["fits"] >= 1
    assert snapshot(place.root) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-m", "small", "-m", "medium"], 2, "one search is of one model"),
        (["--trials", "0"], 2, "'--trials'"),
        (["--extend", "-1"], 2, "'--extend'"),
        (["--concurrency", "0"], 2, "'--concurrency'"),
        (["--trial-memory-mb", "0"], 2, "'--trial-memory-mb'"),
        (["--searcher", "grid"], 2, "--searcher"),
        (["--max-time", "soon"], 2, "write it as 90s, 15m or 1h30m"),
        (["--space", "none.yaml"], 2, "none.yaml: no such config file"),
        (["--set", "train.lerning_rate=1"], 2, "did you mean train.learning_rate?"),
        (["--extend", "3"], 2, "there is no search with these settings to extend"),
        (["--extend", "3", "--fresh"], 2, "give one of them"),
        (["--extend", "3", "--dry-run"], 2, "there is no search with these settings to extend"),
        (["--device", "cuda"], 6, "no cuda device here"),
        (["--trial-memory-mb", "99000000"], 6, "the largest cap that fits now is "),
        (["--trial-memory-mb", "99000000", "--dry-run"], 6, "the largest cap that fits now is "),
        (["--address", "127.0.0.1:9", "--dry-run"], 6, "no Ray cluster answers at 127.0.0.1:9"),
        (["--address", "here"], 6, "write HOST:PORT"),
    ],
)
def test_bad_words_are_refused_in_one_line_before_anything_starts(place, words, code, says):
    done = place.run("tune", *tiny("vanilla"), *words)
    assert done.code == code, done.err
    assert len(done.errors) == 1, done.err
    assert says in done.errors[0]
    assert "Traceback" not in done.err
    assert not (place.root / ".seqpipe" / "searches").exists() or not list(
        (place.root / ".seqpipe" / "searches").iterdir()
    )


def test_a_space_that_cannot_be_used_is_refused_with_its_files_name(place):
    for text, says in (
        ("", "empty"),
        ("train.lerning_rate: {uniform: [0.1, 0.2]}", "did you mean train.learning_rate?"),
        ("train.learning_rate: {uniform: [0.2, 0.1]}", "low bound must be below"),
    ):
        (place.root / "space.yaml").write_text(text)
        done = place.run("tune", *WORDS)
        assert done.code == 2, done.err
        assert len(done.errors) == 1
        assert "space.yaml" in done.errors[0]
        assert says in done.errors[0]
