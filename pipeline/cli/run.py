"""`seqpipe run`: stages in, a table out."""

import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import capped_command, options
from pipeline.cli.console import Watcher, emit, emit_json, percent, program, short_path, table, watching
from pipeline.cli.store import store_of
from pipeline.durations import parse_seconds, readable

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.schema import RunConfig
    from pipeline.evaluation.published import ComparisonRow
    from pipeline.stages.runner import ModelOutcome, Step
    from pipeline.tracking.delivery import Tracker


class Stage(StrEnum):
    """What to run; everything that it needs upstream runs first."""

    all = "all"
    prepare = "prepare"
    train = "train"
    evaluate = "evaluate"
    register = "register"


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("run")(run)


def run(
    called: typer.Context,
    stage: Annotated[Stage, typer.Argument(help="The stage to run, after whatever it needs; all: every stage.")],
    model: options.Models = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    device: options.DeviceOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard what the stage made before; with all, every stage.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run or be skipped, and why; do nothing.")
    ] = False,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", help="Leave after this long (90s, 15m, 1h30m), resumable: exit code 4."),
    ] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(
            "--max-memory-mb",
            help="Hold no more memory than this, with fewer images at a time where needed; past it, exit code 5.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run the pipeline: prepare, train, evaluate, register. What is up to date is skipped."""
    import os
    from functools import partial

    from pipeline.config.resolution import resolve
    from pipeline.errors import BudgetExhaustedError, SeqpipeError, WorkspaceError
    from pipeline.progress import SilentReporter
    from pipeline.stages import last_runs, runner
    from pipeline.stages.context import Context
    from pipeline.stop import StopToken
    from pipeline.tracking import settings as mlflow_settings
    from pipeline.tracking.delivery import Tracker
    from pipeline.workspace.paths import Workspace

    flags: dict[str, object] = {
        "seed": seed,
        "compute.device": device.value if device else None,
        "compute.max_memory_mb": max_memory_mb,
        "compute.max_time_s": parse_seconds(max_time) if max_time is not None else None,
    }
    names = list(dict.fromkeys(name.value for name in model)) if model else [None]
    configs = [resolve(name, config, set_ or (), flags) for name in names]
    through = runner.check_stage(stage.value)
    anew = (runner.STAGES if stage is Stage.all else (through,)) if fresh else ()
    workspace = Workspace.find()
    mlflow = mlflow_settings.load(workspace, os.environ) if dry_run else store_of(workspace)

    if dry_run:
        plans = [(one, runner.plan(one, mlflow, workspace, through, fresh=anew)) for one in configs]
        _show_plans(plans, as_json)
        return

    workspace.create()
    mlflow_settings.require_usable(mlflow)
    cap_mb = configs[0].compute.max_memory_mb
    if cap_mb is not None and not capped_command.is_inside():
        steps = [step for one in configs for step in runner.plan(one, mlflow, workspace, through, fresh=anew)]
        if what_runs := {step.stage for step in steps if step.runs}:
            try:
                first = (
                    partial(capped_command.load_training, configs[0]) if what_runs & {"train", "evaluate"} else None
                )
                raise typer.Exit(capped_command.run_again_under(cap_mb, called.obj, first=first))
            except SeqpipeError:  # the run of a training that was ended cannot say so itself
                silent = Tracker(mlflow, workspace, on_problem=lambda _: None)
                context = Context(workspace, SilentReporter(), StopToken(), mlflow, silent)
                runner.Runner(context).end_dead_runs([], through)
                raise
    again = "the same command without --fresh" if fresh else "the same command"
    limit = StopToken(configs[0].compute.max_time_s, again, capped_command.began())
    with watching() as watcher, limit.installed() as stop_token:
        tracker = Tracker(mlflow, workspace, on_problem=watcher.warn)
        work = runner.Runner(Context(workspace, watcher, stop_token, mlflow, tracker), fresh=anew)
        work.end_dead_runs(configs, through)
        try:
            last_runs.write(workspace, configs)
        except WorkspaceError as error:  # what has to be written says so itself
            watcher.warn(f"`seqpipe status` will not know of this run: {error}")
        try:
            for one in configs:
                work.run(one, through, _announcer(watcher, one))
            tracker.deliver_pending()
        except SeqpipeError as error:
            if any(outcome.evaluation for outcome in work.outcomes):  # what was reached is worth seeing all the same
                how = "not done" if isinstance(error, BudgetExhaustedError) else "failed"
                _show_outcomes(work.outcomes, tracker, as_json, next_command=None, how=how)
            raise
    words = _words(model, config, set_, seed, device)
    _show_outcomes(work.outcomes, tracker, as_json, _next_command(work.outcomes, words))


def _announcer(watcher: Watcher, config: "RunConfig") -> Any:
    def announce(stage: str, why: str) -> None:
        if why != "up to date":
            watcher.heading(f"{stage} ({config.model.name}): {why}")

    return announce


def _show_plans(plans: "list[tuple[RunConfig, list[Step]]]", as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "models": [
                    {
                        "model": config.model.name,
                        "stages": {
                            step.stage: {
                                "would": "run" if step.runs else "skip",
                                "state": step.state,
                                "why": step.why,
                                "fingerprint": step.fingerprint,
                            }
                            for step in steps
                        },
                    }
                    for config, steps in plans
                ]
            }
        )
        return
    rows = [
        [config.model.name, step.stage, "run" if step.runs else "skip", f"{step.state}: {step.why}"]
        for config, steps in plans
        for step in steps
    ]
    table(["model", "stage", "would", "why"], rows)


def _show_outcomes(
    outcomes: "list[ModelOutcome]", tracker: "Tracker", as_json: bool, next_command: str | None, how: str = "failed"
) -> None:
    from pipeline.evaluation.published import ModelResult, comparison_rows
    from pipeline.stages.train import identity_of

    results = [
        ModelResult(
            model=outcome.config.model.name,
            accuracy=outcome.evaluation.accuracy,
            accuracy_low=outcome.evaluation.accuracy_low,
            accuracy_high=outcome.evaluation.accuracy_high,
            loss=outcome.evaluation.loss,
            images=outcome.evaluation.images,
            dataset=outcome.prepared.dataset,
            class_names=outcome.prepared.class_names,
            fraction=outcome.prepared.fraction,
        )
        for outcome in outcomes
        if outcome.evaluation and outcome.prepared
    ]
    compared = {row.model: row for row in comparison_rows(results)}
    if as_json:
        emit_json({"models": [_outcome_json(one, compared.get(one.config.model.name), tracker) for one in outcomes]})
        return
    if compared:
        _show_comparison(list(compared.values()), outcomes)
    for outcome in outcomes:
        name = outcome.config.model.name
        emit(f"{name}: {_what_was_done(outcome, how)}")
        if outcome.trained:
            identity = identity_of(outcome.trained)
            emit(f"  run {tracker.run_id(identity) or identity.key}: {tracker.location(identity)}")
        elif outcome.prepared:
            counts = ", ".join(f"{outcome.prepared.images_in(split)} {split}" for split in outcome.prepared.counts)
            emit(f"  {counts} images in {outcome.prepared.folder}")
        if outcome.registration:
            registered = outcome.registration
            is_new = outcome is outcomes[-1] and outcome.stages[-1].status == "done"
            aliases = f" ({', '.join(registered.aliases)})" if is_new else ""  # which may have moved on since
            emit(f"  model {registered.name}, version {registered.version}{aliases}")
            if registered.not_compared and outcome.stages[-1].status == "done":
                emit(f"  not compared: {registered.not_compared}; if you prefer this one, move the alias in MLflow")
    if next_command:
        emit(f"next: {next_command}")


def _what_was_done(outcome: "ModelOutcome", how: str) -> str:
    """Each stage that was made; where one is not done, which are up to date and `how` it ended too."""
    if outcome.did_nothing:
        return "nothing to do, every stage is up to date"
    told = [f"{one.stage} {readable(one.seconds)}" for one in outcome.stages if one.status == "done"]
    if outcome.unfinished:
        told += [f"{one.stage} up to date" for one in outcome.stages if one.status == "skipped"]
        told.append(f"{outcome.unfinished} {how}")
    return ", ".join(told)


def _show_comparison(rows: "list[ComparisonRow]", outcomes: "list[ModelOutcome]") -> None:
    prepared = outcomes[0].prepared
    classes = len(prepared.class_names) if prepared else 0
    table(
        ["model", "test accuracy", "95 % interval", "loss", "published", "difference"],
        [
            [
                row.model,
                percent(row.accuracy),
                f"{100 * row.accuracy_low:.2f} to {100 * row.accuracy_high:.2f} %",
                f"{row.loss:.4f}",
                percent(row.published_accuracy),
                "-" if row.difference_points is None else f"{row.difference_points:+.2f} points",
            ]
            for row in rows
        ],
        title=f"{prepared.dataset if prepared else ''}, {classes} classes, {rows[0].images} test images",
    )
    for reason in dict.fromkeys(row.reason for row in rows if row.reason):
        emit(f"not compared with the published figures: {reason}")


def _outcome_json(outcome: "ModelOutcome", row: "ComparisonRow | None", tracker: "Tracker") -> dict[str, Any]:
    from dataclasses import asdict

    from pipeline.stages.train import identity_of

    content: dict[str, Any] = {
        "model": outcome.config.model.name,
        "stages": {
            one.stage: {
                "status": one.status,
                "why": one.why,
                "fingerprint": one.fingerprint,
                "seconds": round(one.seconds, 3),
            }
            for one in outcome.stages
        },
    }
    if outcome.unfinished:
        content["unfinished"] = outcome.unfinished
    if outcome.prepared:
        content["data"] = outcome.prepared.model_dump(mode="json")
    if outcome.trained:
        content["training"] = outcome.trained.model_dump(mode="json")
        content["run_id"] = tracker.run_id(identity_of(outcome.trained))
    if row is not None and outcome.evaluation:
        content["test_accuracy"] = row.accuracy
        content["evaluation"] = outcome.evaluation.model_dump(mode="json")
        content["comparison"] = asdict(row)
    if outcome.registration:
        content["registered"] = outcome.registration.model_dump(mode="json")
    return content


def _words(
    model: list[options.Model] | None,
    config: "Path | None",
    sets: list[str] | None,
    seed: int | None,
    device: options.Device | None,
) -> dict[str, list[str]]:
    """The settings of this command as words, so that the next one can be about the same models."""
    return {
        "--model": [one.value for one in model or ()],
        "--config": [short_path(config.expanduser())] if config else [],
        "--set": list(sets or ()),
        "--seed": [str(seed)] if seed is not None else [],
        "--device": [device.value] if device else [],
    }


def _next_command(outcomes: "list[ModelOutcome]", words: dict[str, list[str]]) -> str:
    """The command that a user would want next, as it can be pasted."""

    def run_all(**other: list[str]) -> str:
        given = words | {f"--{name}": values for name, values in other.items()}
        flags = [word for name, values in given.items() for value in values for word in (name, value)]
        return shlex.join([program(), "run", "all", *flags])

    if outcomes[-1].registration is None:
        return run_all()
    ran = {one.config.model.name for one in outcomes}
    others = [name.value for name in options.Model if name.value not in ran]
    own = any(value.startswith("model.") for value in words["--set"]) or words["--config"]
    more = f"; or another model: {run_all(model=others[:1])}" if others and not own else ""
    return f"{shlex.join([program(), 'ui'])}{more}"
