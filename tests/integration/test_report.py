"""`seqpipe report` with the real product: two seeds and a search, and the store of MLflow."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from report_workspace import PATIENCE_S, place_to_report_on


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The place, what the command left, and the facts."""
    place = place_to_report_on(tmp_path_factory.mktemp("reported"), mlflow=True)
    done = place.run("report", "--html", "report.html", "--card", "card.md", "--json", timeout_s=PATIENCE_S)
    assert done.code == 0, done.err
    yield place, done, json.loads(done.out)
    place.end()


def test_the_page_has_the_last_runs_and_their_newest_search_and_no_address(reported):
    place, _, facts = reported
    [group] = facts["groups"]
    [search] = facts["searches"]
    assert [one["seed"] for one in group["trainings"]] == [0, 1]
    page = (place.root / "report.html").read_text()
    assert "://" not in page
    assert f"Search {search['search']}: vanilla" in page
    assert "How to make it again" in page
    assert "All settings (config.yaml)" in page
    assert "Most confident mistakes" in page
    assert page.count('src="data:image/png;base64,') == min(24, _mistakes(group))
    labels = re.findall(r'<svg [^>]*aria-label="([^"]+)"', page)
    assert len(labels) == page.count("<svg ") == 11, "seeds, 4 charts, the model, 3 of the search, memory and time"
    assert any(label.startswith("The layers of vanilla, 4 classes") for label in labels)


def _mistakes(group):
    median = next(one for one in group["trainings"] if one["key"] == group["median"])
    confusion = median["test"]["confusion"]
    return sum(map(sum, confusion)) - sum(row[place] for place, row in enumerate(confusion))


def test_memory_and_time_are_forecast_as_a_dry_run_does_and_stand_beside_what_was_measured(reported):
    [group] = reported[2]["groups"]
    forecast, trained = group["forecast"], group["trainings"][0]["trained"]
    assert forecast["micro_batch_size"] == trained["numerics"]["micro_batch_size"]
    assert forecast["pflop"] == pytest.approx(trained["pflop"], rel=0.01)
    assert 0.3 < forecast["peak_mb"] / trained["peak_memory_mb"] < 3
    assert forecast["images_per_s"] > 0


def test_every_version_and_its_decision_are_part_of_the_lineage(reported):
    place, _, facts = reported
    trainings = facts["groups"][0]["trainings"]
    assert [one["registrations"][0]["version"] for one in trainings] == ["1", "2"]
    assert trainings[1]["registrations"][0]["decision"]["number"] == 1
    assert all(one["lineage"]["hash of the data"] for one in trainings)
    assert "The gate on synthetic-airplane-automobile-bird-cat/2 (seed 1)" in (place.root / "report.html").read_text()


def test_the_card_is_of_the_best_on_validation_images(reported):
    place, done, facts = reported
    trainings = facts["groups"][0]["trainings"]
    best = max(trainings, key=lambda one: one["trained"]["validation_accuracy"])
    assert f"({best['key']}), the best of 2 on validation images" in done.err
    card = (place.root / "card.md").read_text()
    assert f"| run | {best['key']} |" in card
    assert f"seqpipe run all --config config.yaml --seed {best['seed']}" in card


def test_mlflow_has_the_page_as_a_run_of_its_own_which_is_no_training(reported):
    place, _, facts = reported
    with closing(sqlite3.connect(place.root / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT runs.artifact_uri, runs.status FROM runs JOIN tags USING (run_uuid) "
            "WHERE tags.key = 'seqpipe.kind' AND tags.value = 'report'"
        ).fetchall()
    [(artifacts, status)] = rows
    assert status == "FINISHED"
    folder = Path(artifacts.removeprefix("file://"))
    assert (folder / "report.html").read_bytes() == (place.root / "report.html").read_bytes()
    assert (folder / "model_card.md").is_file()
    listed = json.loads(place.run("runs", "list", "--json", timeout_s=PATIENCE_S).out)["runs"]
    assert facts["report"] not in [one["key"] for one in listed]
    assert len(listed) == 3, "two seeds and their group"


def test_the_config_of_the_page_trains_the_same_again(reported):
    place = reported[0]
    page = (place.root / "report.html").read_text()
    [text] = re.findall(r"All settings \(config\.yaml\)</summary><pre><code>(.*?)</code>", page, flags=re.DOTALL)
    (place.root / "config.yaml").write_text(text)
    [command] = re.findall(r"seqpipe (run all --config config\.yaml[^\n<]*)", page)
    planned = json.loads(place.run(*command.split(), "--dry-run", "--json", timeout_s=PATIENCE_S).out)
    stages = [stage for model in planned["models"] for stage in model["stages"].values()]
    assert {stage["state"] for stage in stages} == {"up to date"}
