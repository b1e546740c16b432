"""How the experiment opens in the MLflow UI: as model training, with the columns that matter.

The UI reads both from tags of the experiment: its kind, and the state of a view under a key that a link names. The
database is read directly, so that the link is known without importing MLflow.
"""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking.sqlite_files import opened

VIEW = "seqpipe"
"""The key of our view."""
KIND_TAG = "mlflow.experimentKind"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

_METRICS = (
    "test/accuracy", "test/loss", "best/validation_accuracy", "best/epoch", "validation/accuracy",
    "system/process_tree_memory_megabytes",
)  # fmt: skip
_PARAMETERS = ("model.name", "model.parameters", "seed", "train.epochs")
_COLUMNS = (
    "attributes.`Duration`",
    *(f"metrics.`{name}`" for name in _METRICS),
    *(f"params.`{name}`" for name in _PARAMETERS),
)


def tags() -> dict[str, str]:
    """The tags that an experiment of ours has."""
    view = {
        "selectedColumns": ["attributes.`Created`", *_COLUMNS],
        "columnOrder": [],
        "columnWidths": {},
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "groupBy": None,
    }
    return {KIND_TAG: "custom_model_development", VIEW_TAG: json.dumps(view)}


def missing_tags(present: Mapping[str, str]) -> dict[str, str]:
    """Those that an experiment lacks; a kind that somebody gave it stays."""
    return {
        name: value
        for name, value in tags().items()
        if (name not in present if name == KIND_TAG else present.get(name) != value)
    }


def link(database: Path, experiment: str) -> str | None:
    """The rest of the UI's address that shows the experiment in our view; None where it does not have it yet."""
    try:
        with opened(database) as store:
            found = store.execute(
                "SELECT experiments.experiment_id FROM experiments JOIN experiment_tags AS tags "
                "ON tags.experiment_id = experiments.experiment_id AND tags.key = ? WHERE experiments.name = ?",
                (VIEW_TAG, experiment),
            ).fetchone()
    except sqlite3.Error:
        return None
    if found is None:
        return None
    return f"/#/experiments/{found[0]}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
