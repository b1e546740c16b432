"""`seqpipe status`: each stage up to date, stale and why, or partial and how far."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json, table
from pipeline.cli.store import store_of


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("status")(status)


def status(
    model: Annotated[
        list[options.Model] | None, typer.Option("--model", "-m", help="Which model; repeat it for several.")
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Show what is up to date, stale (and why), or unfinished, and every search of a model.

    Without --model: every model, under these settings; without any, under those of its last run here.
    """
    from pipeline.config.resolution import resolve
    from pipeline.config.schema import MODEL_NAMES
    from pipeline.search import store as places
    from pipeline.stages import last_runs, runner
    from pipeline.tracking import delivery_state
    from pipeline.workspace.locks import is_held
    from pipeline.workspace.manifests import StageFolder
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    names = list(dict.fromkeys(name.value for name in model)) if model else list(MODEL_NAMES)
    if not model and config is not None:  # a file stands for the model that it names
        names = [resolve(None, config).model.name]
    asked = model or config is not None or set_ or seed is not None
    ran = {} if asked else last_runs.read(workspace)
    plans = {
        name: runner.plan(ran.get(name) or resolve(name, config, set_ or (), {"seed": seed}), mlflow, workspace)
        for name in names
    }

    def running(step: runner.Step) -> bool:
        return step.runs and is_held(StageFolder(workspace, step.stage, step.fingerprint).lock_path)

    searches = [one for one in places.begun(workspace) if one.model in names]
    waiting = len(delivery_state.pending(workspace, mlflow.address, is_gone=mlflow.is_gone))
    if as_json:
        emit_json(
            {
                "workspace": str(workspace.root),
                "undelivered_runs": waiting,
                "models": [
                    {
                        "model": name,
                        "settings": "last run" if name in ran else "given" if asked else "defaults",
                        "stages": {
                            step.stage: {
                                "state": step.state,
                                "why": step.why,
                                "running": running(step),
                                "fingerprint": step.fingerprint,
                            }
                            for step in steps
                        },
                    }
                    for name, steps in plans.items()
                ],
                "searches": [
                    {
                        "search": one.folder.name,
                        "model": one.model,
                        "begun": one.created,
                        "state": one.state,
                        **asdict(one.standing),
                    }
                    for one in searches
                ],
            }
        )
        return
    rows = [
        [name, step.stage, "running" if running(step) else step.state, step.why]
        for name, steps in plans.items()
        for step in steps
    ]
    emit(f"workspace {workspace.root}")
    for name in ran:
        changes = ", ".join(last_runs.changes(ran[name]))
        if changes:
            emit(f"{name} as it was run last: {changes}")
    table(["model", "stage", "state", "why"], rows)
    if searches:
        found = [[one.folder.name, one.model, one.state, one.standing.in_words(), one.created] for one in searches]
        table(["search", "model", "state", "how far", "begun"], found)
    if waiting:
        from pipeline.tracking.run_list import pending_text

        emit(pending_text(mlflow, waiting))
