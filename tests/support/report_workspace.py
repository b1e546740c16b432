"""A workspace with something to report on: two seeds of a tiny model, and a search that has ended."""

from pathlib import Path

from ledgers import end, run_trial
from product import ONE_EPOCH, Place

from pipeline.config.resolution import resolve
from pipeline.search import report
from pipeline.search.store import SearchFolder
from pipeline.workspace.paths import Workspace
from tuning.ledger import Ledger
from tuning.observer import best_row
from tuning.space import Space

PATIENCE_S = 900
SPACE = {"train.learning_rate": {"uniform": [0.001, 0.01]}, "model.hidden": {"choice": [8, 16, 32]}}


def place_to_report_on(root: Path, *, mlflow: bool) -> Place:
    """Seeds 0 and 1 with a search beside them."""
    place = Place(root, mlflow=mlflow)
    done = place.run("run", "all" if mlflow else "evaluate", *ONE_EPOCH, "--seeds", "0-1", timeout_s=PATIENCE_S)
    assert done.code == 0, done.err
    search_in(root)
    return place


def search_in(root: Path) -> str:
    """A search of six trials with its result files; its id."""
    config = resolve("vanilla", sets=["data.source=synthetic", "train.epochs=2"])
    space = Space.parse(SPACE)
    folder = SearchFolder.of(Workspace(root), config, space)
    folder.create()
    with Ledger(folder.path, folder.identity) as ledger:
        ledger.raise_target(6)
        ledger.decide_cap(700, 2)
        for number, value in enumerate((0.5, 0.8, 0.6, None, 0.7, 0.55)):
            settings = {"train.learning_rate": 0.001 * (number + 1), "model.hidden": 16 if number % 2 else 8}
            row = run_trial(ledger, settings, None, [0.4])
            ledger.fit(row.number, 300.0, "")
            ledger.finish(row.number, end("memory_cap" if value is None else "completed", value))
        report.write(folder.path, config, space, ledger.rows, best_row(ledger.rows, "max"))
    return folder.fingerprint
