"""What `seqpipe status` shows."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, emit_json, table

if TYPE_CHECKING:
    from pipeline.maintenance.status import ModelStatus, Status
    from pipeline.tracking.settings import ResolvedMlflow


def show(status: "Status", mlflow: "ResolvedMlflow", as_json: bool) -> None:
    """The stages of each model, the searches, and what MLflow does not have yet."""
    if as_json:
        emit_json(_as_json(status))
        return
    emit(f"workspace {status.workspace.root}")
    for model in status.models:
        if changed := model.changed_settings:
            emit(f"{model.label} as it was run last: {', '.join(changed)}")
    table(["model", "stage", "state", "why"], [row for model in status.models for row in _rows(model)])
    if status.searches:
        table(
            ["search", "model", "state", "how far", "begun"],
            [[one.folder.name, one.model, one.state, one.status.in_words(), one.created] for one in status.searches],
        )
    if status.undelivered:
        from pipeline.tracking.run_list import pending_text

        emit(pending_text(mlflow, status.undelivered))


def _rows(model: "ModelStatus") -> list[list[str]]:
    return [
        [model.label, one.stage, "running" if one.stage in model.running else one.state, one.why]
        for one in model.stages
    ]


def _as_json(status: "Status") -> dict[str, Any]:
    return {
        "workspace": str(status.workspace.root),
        "undelivered_runs": status.undelivered,
        "models": [
            {
                "model": model.model,
                **({"seed": model.config.seed} if model.is_of_several else {}),
                "settings": model.settings,
                "stages": {
                    one.stage: {
                        "state": one.state,
                        "why": one.why,
                        "running": one.stage in model.running,
                        "fingerprint": one.fingerprint,
                    }
                    for one in model.stages
                },
            }
            for model in status.models
        ],
        "searches": [
            {
                "search": one.folder.name,
                "model": one.model,
                "begun": one.created,
                "state": one.state,
                **asdict(one.status),
            }
            for one in status.searches
        ],
    }
