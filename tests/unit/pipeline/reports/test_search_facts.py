"""What a report knows of a search: from its folder alone."""

import pytest
from few_images import config_with
from ledgers import end, run_trial

from pipeline.reports.search_facts import read_search
from pipeline.search.store import SearchFolder, stored_searches
from pipeline.workspace.paths import Workspace
from tuning.ledger import Ledger
from tuning.space import Space

SPACE = {"train.learning_rate": {"uniform": [0.001, 0.01]}, "model.hidden": {"choice": [8, 16, 32]}}
ENDS = [
    end(value=0.5), end(value=0.8, node="b", peak_mb=400.0, duration_s=20.0), end("stopped", 0.9), end("memory_cap"),
    end(value=0.6), end(value=0.7), None,
]  # fmt: skip


@pytest.fixture
def searched(tmp_path):
    """Six trials that ended, on two nodes, and one that runs."""
    folder = SearchFolder.of(Workspace(tmp_path), config_with(), Space.parse(SPACE))
    folder.create()
    with Ledger(folder.path, folder.identity) as ledger:
        ledger.raise_target(9)
        ledger.decide_cap(700, 2)
        for number, finish in enumerate(ENDS):
            settings = {"train.learning_rate": 0.001 * (number + 1), "model.hidden": 8 if number % 2 else 16}
            row = run_trial(ledger, settings, None, [0.4])
            ledger.fit(row.number, 300.0, "")
            if finish is not None:
                ledger.finish(row.number, finish)
    return Workspace(tmp_path)


def test_the_best_is_a_completed_trial_and_every_outcome_is_counted(searched):
    [stored] = stored_searches(searched)
    found = read_search(stored, "r1")
    assert (found.best.number, found.best.score) == (1, 0.8)
    assert found.outcomes == {"completed": 4, "stopped": 1, "memory_cap": 1, "unfinished": 1}
    assert found.cap_mb == 700
    assert set(found.importances) == set(SPACE)
    assert found.best_config is None, "no command has written its results yet"
    assert found.to_json()["best"]["trial"] == 1
    assert found.to_json()["run_id"] == "r1"


def test_memory_is_forecast_against_measured_and_nodes_say_what_they_did(searched):
    found = read_search(stored_searches(searched)[0])
    assert (300.0, 400.0) in found.memory
    assert len(found.memory) == 6
    [laptop, other] = found.nodes
    assert (laptop.node, laptop.trials, laptop.peak_mb) == ("laptop", 5, 710.0)
    assert (other.node, other.trials, other.seconds, other.peak_mb) == ("b", 1, 20.0, 400.0)


def test_a_search_of_another_version_is_shown_without_its_space(searched):
    [stored] = stored_searches(searched)
    stored.identity["space"]["train.learning_rate"] = {"nonsense": []}
    found = read_search(stored)
    assert (found.space, found.importances) == (None, {})
    assert found.best.number == 1
