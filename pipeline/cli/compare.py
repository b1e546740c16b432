"""`seqpipe runs compare`: what the differences between runs are worth, on the same test images."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit_json
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from pipeline.reports.named_runs import RunFinder
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.workspace.paths import Workspace


def add_to(runs: typer.Typer) -> None:
    """Add the command to `runs`."""
    runs.command("compare")(compare)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Two or more, each against the first: a key or the beginning of one, a name, an id of MLflow, "
            "`champion`, MODEL@champion, MODEL/3, `trial 003`; A+B is a group, A:seeds that of all seeds of A.",
            metavar="A B ...",
        ),
    ],
    html: Annotated[
        Path | None, typer.Option("--html", help="Write it as a page too, with the images they disagree on.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare runs on the same test images: settings, figures with intervals, and where they disagree.

    Looking does not count as a use of the test images; a decision of the gate does. With a trial of a search among
    the runs they are compared on the validation images, since trials see no others.
    """
    from pipeline.cli import compare_view
    from pipeline.errors import ConfigError
    from pipeline.reports.run_comparison import RunComparison, compare_sides
    from pipeline.reports.validation_comparison import ValidationComparison, compare_on_validation, has_trials
    from pipeline.workspace.paths import Workspace

    if len(runs) < 2:
        raise ConfigError("name two runs or more; `seqpipe runs list` lists them")
    workspace = Workspace.find()
    mlflow = store_of(workspace)
    with tempfile.TemporaryDirectory() as scratch:
        sides = run_finder(workspace, mlflow, Path(scratch)).find(runs)
        found: RunComparison | ValidationComparison
        found = compare_on_validation(sides) if has_trials(sides) else compare_sides(sides)
    if html is not None:
        from pipeline.reports import comparison_page

        comparison_page.write(html, found, sides[0].runs[0].prepared)
        complain(f"written: {html}")
    if as_json:
        emit_json(found.to_json())
    else:
        compare_view.show(found)


def run_finder(workspace: "Workspace", mlflow: "ResolvedMlflow", scratch: Path) -> "RunFinder":
    """Finds the runs that a user names, registered versions included; `scratch` is for what has to be fetched."""
    from pipeline.reports.named_runs import NamedRun, RunFinder
    from pipeline.reports.trials import named
    from pipeline.tracking.connection import StoreConnection
    from pipeline.tracking.registry_names import PARAMETERS_TAG, RUN_KEY_TAG
    from pipeline.tracking.version_words import find_version

    def registered(word: str) -> NamedRun | None:
        found = find_version(StoreConnection(mlflow, workspace, complain), word, scratch)
        if found is None:
            return None
        tags = found.version.tags
        parameters = tags.get(PARAMETERS_TAG, "")
        return NamedRun(
            key=tags.get(RUN_KEY_TAG, found.words),
            name=found.words,
            model=tags.get("model", "-"),
            parameters=int(parameters) if parameters.isdecimal() else None,
            predictions=found.version.predictions(),
        )

    def trials(word: str) -> list[NamedRun]:
        return named(workspace, word, mlflow.address)

    return RunFinder(workspace, mlflow.address, registered, trials)
