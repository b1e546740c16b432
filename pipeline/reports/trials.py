"""The trials of searches that a user names: by name, key or MLflow id, with their settings and validation figures."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.reports.named_runs import SHORTEST_PREFIX, NamedRun, OnValidation, prepared_data
from pipeline.search.store import StoredSearch, stored_searches
from pipeline.stages import prepare, train
from pipeline.tracking import delivery_state
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from tuning.ledger import Row


def named(workspace: Workspace, word: str, address: str) -> list[NamedRun]:
    """The trials that a word names; several searches may have one of that name. `address` is the MLflow store's.

    Raises:
        ConfigError: a trial without a whole epoch, or without its config.
    """
    return [
        _run(workspace, key, name, run_id, search, row)
        for key, name, run_id, search, row in _trials(workspace, address)
        if word in (key, name) or (len(word) >= SHORTEST_PREFIX and run_id.startswith(word))
    ]


def _trials(workspace: Workspace, address: str) -> "Iterator[tuple[str, str, str, StoredSearch, Row]]":
    """Key, name and MLflow id (empty: none known) of every trial, and what is kept of it."""
    from tuning import ledger

    for search in stored_searches(workspace):
        contents = ledger.read(search.folder)
        for row in contents.rows if contents is not None else ():
            key = search.trial_key(row.number)
            store = delivery_state.read_store(workspace, key, address)
            yield key, f"trial {row.number:03d}", store.run_id if store else "", search, row


def _run(workspace: Workspace, key: str, name: str, run_id: str, search: StoredSearch, row: "Row") -> NamedRun:
    reports = [report for report in row.reports if math.isfinite(report.value)]
    if not reports:
        raise ConfigError(f"{name} ({key}) has no whole epoch to compare: {row.outcome or 'it has just begun'}")
    file = search.trial_folder(row.number) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{name} ({key}) has lost its settings: {file} is gone")
    config = resolve(file=file)
    best = max(reports, key=lambda report: report.value)
    fingerprint = prepare.fingerprint_of(config)
    kept = prepared_data(workspace, fingerprint)
    epochs = f"{row.last_epoch} of {config.train.epochs} epochs"
    return NamedRun(
        key=key,
        name=name,
        model=config.model.name,
        parameters=None,
        predictions=None,
        run_id=run_id or None,
        settings={**prepare.reads(config), **train.reads(config)},
        prepared=kept[1] if kept else None,
        on_validation=OnValidation(
            split=fingerprint,
            accuracy=best.value,
            loss=best.metrics.get("validation/loss"),
            epoch=best.epoch,
            trained=f"trial, {row.outcome or 'running'}, {epochs}",
        ),
        is_trial=True,
    )
