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

    Without --model: every model, under these settings.
    """
    from pipeline import run_records, runner
    from pipeline.config import MODEL_NAMES, resolve
    from pipeline.search import places
    from pipeline.workspace import StageFolder, Workspace, is_held

    workspace = Workspace.find()
    mlflow = store_of(workspace)
    names = list(dict.fromkeys(name.value for name in model)) if model else list(MODEL_NAMES)
    if not model and config is not None:  # a file stands for the model that it names
        names = [resolve(None, config).model.name]
    plans = {
        name: runner.plan(resolve(name, config, set_ or (), {"seed": seed}), mlflow, workspace) for name in names
    }

    def running(step: runner.Step) -> bool:
        return step.runs and is_held(StageFolder(workspace, step.stage, step.fingerprint).lock_path)

    searches = [one for one in places.begun(workspace) if one.model in names]
    waiting = len(run_records.pending(workspace, mlflow.address))
    if as_json:
        emit_json(
            {
                "workspace": str(workspace.root),
                "undelivered_runs": waiting,
                "models": [
                    {
                        "model": name,
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
    table(["model", "stage", "state", "why"], rows)
    if searches:
        found = [[one.folder.name, one.model, one.state, one.standing.in_words(), one.created] for one in searches]
        table(["search", "model", "state", "how far", "begun"], found)
    if waiting:
        emit(f"{waiting} run(s) have figures that MLflow was not told yet; the next `seqpipe run` tells it")
