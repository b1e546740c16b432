"""`seqpipe run`: bring stages up to date."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import capped_command, options
from pipeline.cli.console import complain, watching
from pipeline.cli.store import store_of
from pipeline.durations import parse_seconds

if TYPE_CHECKING:
    from pipeline.stages.context import TrainingNode
    from pipeline.stages.request import Request
    from pipeline.stages.runner import ModelOutcome
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.training.forecaster import TrainingForecast
    from pipeline.workspace.paths import Workspace


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("run")(run)


def run(
    called: typer.Context,
    stage: Annotated[
        options.Stage, typer.Argument(help="The stage to run, after whatever it needs; all: every stage.")
    ],
    model: options.Models = None,
    recipe: options.RecipeOption = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
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
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="NODE",
            help="Train on that laptop of the cluster, under --max-memory-mb there; all else is done here.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run the pipeline: prepare, train, evaluate, register. What is up to date is skipped."""
    from pipeline.cli.next_command import after_run, settings_words
    from pipeline.config.resolution import resolve
    from pipeline.stages.request import Request
    from pipeline.tracking.settings import require_usable
    from pipeline.workspace.paths import Workspace

    flags: dict[str, object] = {
        "recipe": recipe.value if recipe else None,
        "compute.device": device.value if device else None,
        "compute.max_memory_mb": max_memory_mb,
        "compute.max_time_s": parse_seconds(max_time) if max_time is not None else None,
    }
    names: Sequence[str | None] = options.names_of(model) or [None]
    several = _seeds(seeds, seed, stage.value)
    each_seed: Sequence[int | None] = several or [seed]
    configs = [resolve(name, config, set_ or (), {**flags, "seed": one}) for name in names for one in each_seed]
    request = Request(configs, stage.value, fresh, several)
    workspace = Workspace.find()
    mlflow = store_of(workspace, dry_run=dry_run)
    node = _node(on, request, workspace)
    if dry_run:
        _dry_run(request, mlflow, workspace, node, as_json)
        return
    workspace.create()
    require_usable(mlflow)
    if request.configs[0].compute.max_memory_mb is not None and node is None and not capped_command.is_inside():
        _run_capped(request, mlflow, workspace, called.obj)
    words = settings_words(model, config, set_, seed, device, recipe, seeds)
    _run(request, mlflow, workspace, node, as_json, lambda outcomes: after_run(outcomes, words))


def _seeds(seeds: str | None, seed: int | None, stage: str) -> Sequence[int]:
    """The seeds of a command for several; none without `--seeds`."""
    from pipeline.config.seed_list import parse_seeds
    from pipeline.errors import ConfigError

    if seeds is None:
        return ()
    if seed is not None:
        raise ConfigError("--seed is one seed and --seeds are several; give one of them")
    if not _trains(stage):
        raise ConfigError(f"--seeds are of trainings, and `{stage}` needs none; use `seqpipe run train`")
    return parse_seeds(seeds)


def _trains(stage: str) -> bool:
    from pipeline.stages.catalog import stages_through
    from pipeline.stages.train import STAGE

    return STAGE in stages_through(stage)


def _node(name: str | None, request: "Request", workspace: "Workspace") -> "TrainingNode | None":
    """The laptop that trains; None for this one."""
    from pipeline.errors import ConfigError, MachineUnfitError
    from pipeline.stages.context import TrainingNode

    if name is None:
        return None
    from pipeline.cluster.workspace_cluster import running

    if not _trains(request.through):
        raise ConfigError(f"--on says where to train, and `{request.through}` does not; use `seqpipe run train`")
    access = running(workspace)
    if access is None:
        raise MachineUnfitError(
            f"no cluster runs from this workspace, so there is no {name} to train on; start one with "
            "`seqpipe cluster up`, and join it there"
        )
    return TrainingNode(name, access.address, access.token)


def _dry_run(
    request: "Request", mlflow: "ResolvedMlflow", workspace: "Workspace", node: "TrainingNode | None", as_json: bool
) -> None:
    from pipeline.cli import run_view
    from pipeline.errors import MachineUnfitError

    plans = request.plans(mlflow, workspace)
    forecasts: dict[str, TrainingForecast] = {}
    try:
        if node is None:
            forecasts = request.forecasts(plans)
        else:
            complain(f"no forecast: {node.name} would train, and a forecast is of the machine that it is made on")
    except MachineUnfitError as error:
        complain(f"no forecast: {error}")
    run_view.show_plans(request, plans, forecasts, as_json)


def _run_capped(
    request: "Request", mlflow: "ResolvedMlflow", workspace: "Workspace", run_words: Callable[[bool], int]
) -> None:
    """Run the same command under its memory cap, and exit as it does; return if there is nothing to do."""
    from functools import partial

    from pipeline.errors import SeqpipeError
    from pipeline.stages.request import loads_model
    from pipeline.tracking.delivery import Tracker

    stages = request.stages_to_run(mlflow, workspace)
    if not stages:
        return
    first = request.configs[0]
    load = partial(capped_command.load_training, first) if loads_model(stages) else None
    assert first.compute.max_memory_mb is not None
    try:
        raise typer.Exit(capped_command.run_again_under(first.compute.max_memory_mb, run_words, first=load))
    except SeqpipeError:  # a training that was killed cannot close its own run
        Tracker(mlflow, workspace, on_problem=lambda _: None).close_dead()
        raise


def _run(
    request: "Request",
    mlflow: "ResolvedMlflow",
    workspace: "Workspace",
    node: "TrainingNode | None",
    as_json: bool,
    next_command: "Callable[[list[ModelOutcome]], str]",
) -> None:
    from pipeline.cli import run_view, seeds_view
    from pipeline.errors import BudgetExhaustedError, GateRefusedError, SeqpipeError
    from pipeline.stages.context import Context
    from pipeline.stages.runner import Runner
    from pipeline.stop import StopToken
    from pipeline.tracking.delivery import Tracker

    show_outcomes = seeds_view.show_outcomes if request.seeds else run_view.show_outcomes
    limit = StopToken(request.configs[0].compute.max_time_s, request.again, capped_command.began())
    with watching() as watcher, limit.installed() as stop_token:
        tracker = Tracker(mlflow, workspace, on_problem=watcher.warn)
        runner = Runner(Context(workspace, watcher, stop_token, mlflow, tracker, node), fresh=request.fresh)
        try:
            runner.run_all(request, watcher.stage)
        except SeqpipeError as error:
            if runner.has_figures:  # worth seeing all the same
                how = "not done" if isinstance(error, BudgetExhaustedError) else "failed"
                show_outcomes(runner.outcomes, tracker, as_json, how=how)
            raise
    show_outcomes(runner.outcomes, tracker, as_json, next_command=next_command(runner.outcomes))
    # seeds are trained to see how they spread: that not each of them becomes champion is no failure
    if not request.seeds and (refusal := run_view.refusal(runner.outcomes)) is not None:
        raise GateRefusedError(refusal)
