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

_WIDTHS: Mapping[str, int | None] = {
    "attributes.`Duration`": 85,
    "metrics.`test/accuracy`": 110,
    "metrics.`test/loss`": 90,
    "metrics.`peak_memory_mb`": 135,
    "params.`model.name`": 105,
    "params.`model.parameters`": 145,
    "metrics.`best/validation_accuracy`": 190,
    "metrics.`best/epoch`": 95,
    "metrics.`validation/accuracy`": 150,
    "params.`seed`": None,
    "params.`train.epochs`": None,
}
"""The columns in their order, those that matter most first, each as wide as its heading (None: as the UI has it)."""
_IN_TABLE = {"attributes.`Duration`": "duration"}
"""What the UI's table calls a column that has another name in the list of those that are shown."""
_FIRST = ("0", "attributes.`Run Name`", "runDateAndNestInfo")
"""The columns of the table before ours: a box to tick, the name, when."""


def tags() -> dict[str, str]:
    """The tags that an experiment of ours has."""
    view = {
        "selectedColumns": ["attributes.`Created`", *_WIDTHS],
        "columnOrder": [*_FIRST, *(_IN_TABLE.get(name, name) for name in _WIDTHS)],
        "columnWidths": {_IN_TABLE.get(name, name): width for name, width in _WIDTHS.items() if width is not None},
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
