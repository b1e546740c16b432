"""`seqpipe tune`: a search over a model's settings, every trial under a hard memory cap."""

import os
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, program, watching
from pipeline.cli.store import store_of
from pipeline.durations import parse_seconds
from pipeline.search.defaults import DEFAULT_TRIALS

if TYPE_CHECKING:
    from pipeline.cluster.place import Place
    from pipeline.search.request import Request
    from pipeline.search.run import SearchOutcome, Survey
    from pipeline.tracking.delivery import Tracker


class Searcher(StrEnum):
    """What proposes configurations."""

    optuna = "optuna"
    random = "random"


class Scheduler(StrEnum):
    """What stops trials that fall behind."""

    asha = "asha"
    none = "none"


Model = Annotated[
    list[options.Model] | None,
    typer.Option("--model", "-m", help="Which model. Default: small.", show_default=False),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", min=1, help=f"How many trials. Default: {DEFAULT_TRIALS}.", show_default=False),
]
TrialMemory = Annotated[
    int | None,
    typer.Option(
        "--trial-memory-mb",
        min=1,
        help="Memory of one trial, a hard cap. Default: what the node can hold.",
        show_default=False,
    ),
]
Reserve = Annotated[
    int | None,
    typer.Option(
        "--reserve-mb",
        min=1,
        help="Memory that stays free for everything else. Default: a tenth of the machine's, at least 512 MB.",
        show_default=False,
    ),
]
MaxTime = Annotated[
    str | None, typer.Option("--max-time", help="Leave after this long (90s, 15m, 1h30m), resumable: exit code 4.")
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Trials at once. Default: as many as fit.", show_default=False),
]
SearcherOption = Annotated[
    Searcher, typer.Option("--searcher", help="What proposes configurations: Optuna's TPE, or chance.")
]
SchedulerOption = Annotated[Scheduler, typer.Option("--scheduler", help="What stops trials that fall behind.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the proposals and of every training.")]
Extend = Annotated[
    int, typer.Option("--extend", min=0, help="Add this many trials to a search that has all of its own.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Discard what the search found before.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the space, the nodes, and how many trials fit where; do nothing.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="An existing Ray cluster that this machine is part of."),
]
Local = Annotated[bool, typer.Option("--local", help="Leave this workspace's cluster alone: search on this laptop.")]
MaySleep = Annotated[bool, typer.Option("--may-sleep", help="Let this laptop fall asleep while trials run.")]
SpaceFile = Annotated[
    Path | None, typer.Option("--space", help="A YAML file with the space, in place of the model's default one.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("tune")(tune)


def tune(
    model: Model = None,
    trials: Trials = None,
    trial_memory_mb: TrialMemory = None,
    reserve_mb: Reserve = None,
    max_time: MaxTime = None,
    concurrency: Concurrency = None,
    searcher: SearcherOption = Searcher.optuna,
    scheduler: SchedulerOption = Scheduler.asha,
    seed: Seed = None,
    extend: Extend = 0,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    address: Address = None,
    local: Local = False,
    space: SpaceFile = None,
    may_sleep: MaySleep = False,
    recipe: options.RecipeOption = None,
    config: options.ConfigFile = None,
    set_: options.Sets = None,
    device: options.DeviceOption = None,
    as_json: options.Json = False,
) -> None:
    """Search for better settings of one model on the validation split. Repeating the command goes on."""
    from pipeline.cli import tune_view
    from pipeline.config.resolution import resolve
    from pipeline.errors import ConfigError
    from pipeline.search.request import Request
    from pipeline.search.space import space_for

    if model and len(model) > 1:
        raise ConfigError("one search is of one model; run `seqpipe tune` once for each")
    place = _place(address, is_local=local)
    flags: dict[str, object] = {
        "recipe": recipe.value if recipe else None,
        "seed": seed,
        "compute.device": device.value if device else None,
    }
    base = resolve(model[0].value if model else None, config, set_ or (), flags)
    request = Request(
        config=base,
        space=space_for(base, space),
        trials=trials,
        extend=extend,
        fresh=fresh,
        cap_mb=trial_memory_mb,
        reserve_mb=reserve_mb,
        concurrency=concurrency,
        searcher=searcher.value,
        scheduler=scheduler.value,
        address=place.address,
        token=place.token,
        max_time_s=parse_seconds(max_time) if max_time is not None else base.compute.max_time_s,
        may_sleep=may_sleep,
    )
    if dry_run:
        if place.note:
            complain(place.note)
        tune_view.show_survey(_survey(request), as_json)
        return
    outcome, tracker = _search(request, place.note)
    tune_view.show_outcome(outcome, tracker, as_json)
    if outcome.error is not None:
        raise outcome.error


def _survey(request: "Request") -> "Survey":
    """What the command would do; nothing is written."""
    from pipeline.search.run import survey
    from pipeline.tracking import settings as mlflow_settings
    from pipeline.tracking.mlflow_variables import quiet
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    mlflow_settings.load(workspace, os.environ)  # settings that are wrong are refused here too
    quiet(os.environ)  # before Ray imports MLflow
    return survey(request, workspace)


def _place(address: str | None, *, is_local: bool) -> "Place":
    """Where to search: the cluster of this workspace, if one runs, unless the user says otherwise."""
    from pipeline.cluster.place import Place, place_of_search
    from pipeline.errors import ConfigError
    from pipeline.workspace.paths import Workspace

    if address is not None and is_local:
        raise ConfigError("--local is this laptop alone and --address a cluster; give one of them")
    if address is not None or is_local:
        return Place(address)
    return place_of_search(Workspace.find())


def _search(request: "Request", note: str) -> "tuple[SearchOutcome, Tracker]":
    """Run the search in the workspace, with a live view of it."""
    from pipeline.cli.tune_live_view import SearchView
    from pipeline.search.run import search
    from pipeline.search.space import default_of
    from pipeline.search.staying_awake import StaysAwake
    from pipeline.stages.context import Context
    from pipeline.stop import StopToken
    from pipeline.tracking import settings as mlflow_settings
    from pipeline.tracking.delivery import Tracker
    from pipeline.tracking.mlflow_variables import quiet
    from pipeline.workspace.paths import Workspace
    from tuning.awake import Awake

    workspace, config = Workspace.find(), request.config
    mlflow = store_of(workspace)
    quiet(os.environ)  # before Ray imports MLflow
    workspace.create()
    mlflow_settings.require_usable(mlflow)
    again = "the same command without --fresh" if request.fresh else "the same command"
    with watching() as watcher, StopToken(request.max_time_s, again).installed() as stop_token:
        if note:
            watcher.note(note)
        tracker = Tracker(mlflow, workspace, on_problem=watcher.warn)
        context = Context(workspace, watcher, stop_token, mlflow, tracker)

        def on_stage(stage: str, why: str) -> None:
            if why != "up to date":
                watcher.heading(f"{stage} ({config.model.name}): {why}")

        default = default_of(request.space, config)
        with (
            Awake(may_sleep=request.may_sleep) as awake,
            closing(SearchView(watcher, config.train.epochs, default, request.max_time_s)) as view,
        ):
            return search(request, context, [view, StaysAwake(awake)], program(), on_stage), tracker
