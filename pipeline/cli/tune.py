"""`seqpipe tune`: a search over a model's settings, every trial under a memory cap that holds."""

import shlex
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.console import emit, emit_json, percent, program, short_path, table, watching
from pipeline.cli.store import store_of
from pipeline.durations import parse_seconds, readable

if TYPE_CHECKING:
    from pipeline.search.run import Outcome, Request
    from pipeline.search.store import SearchPlace
    from pipeline.tracking.delivery import Tracker
    from tuning.capacity import Capacity


class Searcher(StrEnum):
    """What proposes configurations."""

    optuna = "optuna"
    random = "random"


class Scheduler(StrEnum):
    """What stops trials that fall behind."""

    asha = "asha"
    none = "none"


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("tune")(tune)


def tune(
    model: Annotated[
        list[options.Model] | None,
        typer.Option("--model", "-m", help="Which model. Default: small.", show_default=False),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How many trials. Default: 30.", show_default=False)
    ] = None,
    trial_memory_mb: Annotated[
        int | None,
        typer.Option(
            "--trial-memory-mb",
            min=1,
            help="Memory of one trial, a hard cap. Default: what the node can hold.",
            show_default=False,
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", help="Leave after this long (90s, 15m, 1h30m), resumable: exit code 4."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Trials at once. Default: as many as fit.", show_default=False),
    ] = None,
    searcher: Annotated[
        Searcher, typer.Option("--searcher", help="What proposes configurations: Optuna's TPE, or chance.")
    ] = Searcher.optuna,
    scheduler: Annotated[
        Scheduler, typer.Option("--scheduler", help="What stops trials that fall behind.")
    ] = Scheduler.asha,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the proposals and of every training.")] = None,
    extend: Annotated[
        int, typer.Option("--extend", min=0, help="Add this many trials to a search that has all of its own.")
    ] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what the search found before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the space, the nodes, and how many trials fit where; do nothing.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="An existing Ray cluster that this machine is part of."),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="A YAML file with the space, in place of the model's default one.")
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    device: options.DeviceOption = None,
    as_json: options.Json = False,
) -> None:
    """Search for better settings of one model on the validation split. Repeating the command goes on."""
    import os

    from pipeline.config.resolution import resolve
    from pipeline.errors import ConfigError
    from pipeline.search import run
    from pipeline.search.space import default_of, space_for
    from pipeline.search.store import SearchPlace
    from pipeline.stages.context import Context
    from pipeline.stop import StopToken
    from pipeline.tracking import settings as mlflow_settings
    from pipeline.tracking.delivery import Tracker
    from pipeline.tracking.mlflow_variables import quiet
    from pipeline.workspace.paths import Workspace

    if model and len(model) > 1:
        raise ConfigError("one search is of one model; run `seqpipe tune` once for each")
    flags: dict[str, object] = {"seed": seed, "compute.device": device.value if device else None}
    base = resolve(model[0].value if model else None, config, set_ or (), flags)
    max_time_s = parse_seconds(max_time) if max_time is not None else base.compute.max_time_s
    request = run.Request(
        config=base,
        space=space_for(base, space),
        trials=trials,
        extend=extend,
        fresh=fresh,
        cap_mb=trial_memory_mb,
        concurrency=concurrency,
        searcher=searcher.value,
        scheduler=scheduler.value,
        address=address,
    )
    workspace = Workspace.find()
    mlflow = mlflow_settings.load(workspace, os.environ) if dry_run else store_of(workspace)
    quiet(os.environ)  # Ray imports MLflow before we do
    place = SearchPlace.of(workspace, base, request.space)
    if dry_run:
        _show_plan(request, place, run.survey(request, place), as_json)
        return

    from pipeline.cli.search_view import SearchView

    workspace.create()
    mlflow_settings.require_usable(mlflow)
    again = "the same command without --fresh" if fresh else "the same command"
    with watching() as watcher, StopToken(max_time_s, again).installed() as stop_token:
        tracker = Tracker(mlflow, workspace, on_problem=watcher.warn)
        default = default_of(request.space, base)
        view = SearchView(watcher, base.train.epochs, default, max_time_s)

        def on_stage(stage: str, why: str) -> None:
            if why != "up to date":
                watcher.heading(f"{stage} ({base.model.name}): {why}")

        try:
            outcome = run.search(
                request, Context(workspace, watcher, stop_token, mlflow, tracker), [view], program(), on_stage
            )
        finally:
            view.close()
    if as_json:
        emit_json(_as_json(outcome, tracker))
    else:
        _show(outcome, default, tracker)
    if outcome.left is not None:
        raise outcome.left
    if (capped := outcome.all_capped) is not None:
        raise capped


def _show(outcome: "Outcome", default: dict[str, Any], tracker: "Tracker") -> None:
    from pipeline.search.report import SHOWN, ranked, settings_in_words

    result, rows = outcome.result, ranked(outcome.result.rows)
    if result.plan is None and result.ended == "finished":
        emit("nothing to do: the search has all of its trials (--extend N adds more, --fresh begins anew)")
    table(
        ["trial", "outcome", "validation", "epochs", "memory", "time", "settings (the default's aside)"],
        [
            [
                str(row.number),
                row.finish.outcome if row.finish else "unfinished",
                percent(row.finish.value if row.finish else None),
                str(row.finish.epochs if row.finish else row.last_epoch),
                f"{row.finish.peak_mb:.0f} MB" if row.finish else "-",
                readable(row.finish.duration_s) if row.finish else "-",
                settings_in_words(row, default),
            ]
            for row in rows[:SHOWN]
        ],
        title=f"search {outcome.place.fingerprint}: {outcome.place.model}, {_counts(outcome)}",
    )
    if len(rows) > SHOWN:
        emit(f"all {len(rows)} trials: {outcome.place.folder / 'trials.csv'}")
    failures = [row.finish.error for row in result.rows if row.finish and row.finish.outcome == "failed"]
    if failures:
        emit(f"the first of {len(failures)} failures: {failures[0]}")
    if outcome.report.importances:
        shares = list(outcome.report.importances.items())[:3]
        told = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares)
        completed = sum(row.finish is not None and row.finish.outcome == "completed" for row in rows)
        emit(f"what made the difference, as far as {completed} completed trials tell: {told}")
    if result.ended == "exhausted":
        emit("every configuration of the space was tried")
    if result.plan is not None:
        emit(f"memory beside the trials: at most {result.overhead_mb:.0f} MB; {_freed(result.freed_bytes)}")
    emit(f"  run {tracker.run_id(outcome.run) or outcome.run.key}: {tracker.location(outcome.run)}")
    if outcome.report.best_config is not None:
        emit(f"best config: {outcome.report.best_config}")
        emit(f"next: {shlex.join([program(), 'run', 'all', '--config', short_path(outcome.report.best_config)])}")


def _counts(outcome: "Outcome") -> str:
    counts = Counter(row.finish.outcome if row.finish else "unfinished" for row in outcome.result.rows)
    told = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    return f"{len(outcome.result.rows)} of {outcome.result.target} trials ({told})"


def _freed(freed_bytes: int) -> str:
    return f"{freed_bytes / 1e6:.0f} MB of checkpoints that nothing needs any more were deleted"


def _as_json(outcome: "Outcome", tracker: "Tracker") -> dict[str, Any]:
    from pipeline.search.report import as_record

    result, best = outcome.result, outcome.result.best
    return {
        "search": outcome.place.fingerprint,
        "folder": str(outcome.place.folder),
        "model": outcome.place.model,
        "ended": "interrupted" if outcome.left is not None else result.ended,
        "ran": result.plan is not None,
        "target": result.target,
        "trials": [as_record(row) for row in result.rows],
        "best": as_record(best) if best else None,
        "best_config": str(outcome.report.best_config) if outcome.report.best_config else None,
        "importances": dict(outcome.report.importances),
        "memory_beside_trials_mb": round(result.overhead_mb, 1),
        "freed_bytes": result.freed_bytes,
        "plan": _plan_json(result.plan) if result.plan else None,
        "run_id": tracker.run_id(outcome.run),
    }


def _show_plan(request: "Request", place: "SearchPlace", plan: "Capacity", as_json: bool) -> None:
    from pipeline.search.space import default_of, in_words, value_in_words

    standing = None if request.fresh else place.standing()
    trials = request.target(standing)
    default = default_of(request.space, request.config)
    if as_json:
        emit_json(
            {
                "search": place.fingerprint,
                "model": place.model,
                "target": trials,
                "finished": standing.finished if standing else 0,
                "space": request.space.to_json(),
                "default": default,
                "plan": _plan_json(plan),
            }
        )
        return
    table(
        ["setting", "what it may be", "trial 0"],
        [[key, in_words(parameter), value_in_words(default[key])] for key, parameter in request.space.items()],
        title=f"search {place.fingerprint}: {place.model}, {request.config.train.epochs} epochs a trial",
    )
    table(
        ["node", "cores", "memory for trials", "trials at once"],
        [
            [node.name, f"{node.cpus:g}", f"{node.memory_mb} MB", str(fits)]
            for node, fits in zip(plan.nodes, plan.fits, strict=True)
        ],
        title=f"{plan.cap_mb} MB for each trial, {plan.concurrency} at once",
    )
    emit(f"{standing.in_words() if standing else 'not begun'}; {trials} trials in all")


def _plan_json(plan: "Capacity") -> dict[str, Any]:
    return {
        "trial_memory_mb": plan.cap_mb,
        "concurrency": plan.concurrency,
        "cores_per_trial": plan.cpus_per_trial,
        "nodes": [
            {"name": node.name, "cores": node.cpus, "memory_mb": node.memory_mb, "fits": fits}
            for node, fits in zip(plan.nodes, plan.fits, strict=True)
        ],
    }
