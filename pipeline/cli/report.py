"""`seqpipe report`: trainings and searches as one page that needs no other, and as a model card."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.compare import run_finder
from pipeline.cli.console import complain, emit, emit_json, short_path
from pipeline.cli.store import store_of

if TYPE_CHECKING:
    from pipeline.config.schema import RunConfig
    from pipeline.reports.report_facts import Report
    from pipeline.tracking.settings import ResolvedMlflow
    from pipeline.training.forecaster import TrainingForecast
    from pipeline.workspace.paths import Workspace

PAGE = Path("report.html")


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("report", epilog="Example: seqpipe report champion --html champion.html --card champion.md")(report)


def reportable(incomplete: str) -> list[str]:
    """What a shell offers: the keys of trainings, the ids of searches, and `champion`."""
    from pipeline.errors import SeqpipeError
    from pipeline.reports.named_runs import RunFinder
    from pipeline.search.store import stored_searches
    from pipeline.workspace.paths import Workspace

    try:
        workspace = Workspace.find()
        runs = [run.key for run in RunFinder(workspace, "").every()]
        known = ["champion", *runs, *(search.folder.name for search in stored_searches(workspace))]
    except SeqpipeError:  # the command itself says what is wrong
        return []
    return [one for one in known if one.startswith(incomplete)]


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Trainings and searches: a key or the beginning of one, a name, an id of MLflow, `champion`, "
            "MODEL/3, A:seeds for all seeds of A, the id of a search. Default: the last run of each model, and its "
            "last search.",
            metavar="RUN|SEARCH",
            show_default=False,
            autocompletion=reportable,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Everything in this workspace.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help=f"Where to write the page. Default: {PAGE}.", show_default=False)
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="Write the Markdown model card too: of the best on validation images."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Report on trainings and searches: one page with tables and charts, which needs no network.

    With --json the facts are written to stdout, and a page only where --html says so.
    """
    from pipeline.errors import ConfigError
    from pipeline.reports.markdown_card import card_of, is_card
    from pipeline.reports.report_page import is_ours, page_of
    from pipeline.workspace.durable_files import write_atomically
    from pipeline.workspace.paths import Workspace

    if what and every:
        raise ConfigError("--all is everything here; name trainings and searches, or give --all")
    html = html if html is not None or as_json else PAGE
    if html is not None and card is not None and html.resolve() == card.resolve():
        raise ConfigError(f"--html and --card are both {card}; name two files")
    _check_target(html, "--html", is_ours)
    _check_target(card, "--card", is_card)
    workspace = Workspace.find()
    mlflow = store_of(workspace)
    with tempfile.TemporaryDirectory() as scratch:
        found = _gather(what or [], workspace, mlflow, Path(scratch), every=every)
        written = page_of(found) if html is not None else None
    card_text = None
    if card is not None:
        best, group = found.best, found.group_of_best
        if best is None or group is None:
            raise ConfigError("--card: there is no training in this report; name one")
        card_text = card_of(group, best)
        write_atomically(card, card_text.encode())
        of = f", the best of {len(found.trainings)} on validation images" if len(found.trainings) > 1 else ""
        complain(f"{short_path(card)}: the card of {best.run.name} ({best.run.key}){of}")
    if html is not None and written is not None:
        write_atomically(html, written.encode())
        _log(found, written, card_text, workspace, mlflow)
    if as_json:
        emit_json(found.to_json())
    elif html is not None:
        emit(short_path(html))


def _check_target(path: Path | None, flag: str, is_ours: Callable[[bytes], bool]) -> None:
    """Refuse to replace a file that no report has written."""
    from pipeline.errors import ConfigError

    if path is None:
        return
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ConfigError(f"{flag}: there is no folder {path.parent}") from None
        return
    except OSError as error:
        raise ConfigError(f"{flag}: {path} cannot be written: {error.strerror}") from None
    if not is_ours(content):
        raise ConfigError(f"{path} is there and was not made by `seqpipe report`; name another file with {flag}")


def _gather(
    words: list[str], workspace: "Workspace", mlflow: "ResolvedMlflow", scratch: Path, *, every: bool
) -> "Report":
    import time

    from pipeline.reports.report_choice import Chooser
    from pipeline.reports.report_facts import gather

    chooser = Chooser(run_finder(workspace, mlflow, scratch), mlflow)
    choice = chooser.named(words) if words else chooser.all() if every else chooser.last()
    with _forecasts() as forecast:
        return gather(choice, chooser, time.strftime("%Y-%m-%d %H:%M %Z"), forecast, complain)


@contextmanager
def _forecasts() -> "Iterator[Callable[[RunConfig], TrainingForecast]]":
    """Forecasts of trainings, while the process that makes them runs."""
    from pipeline.reports.forecasting import PATIENCE_S, ReportForecasts
    from pipeline.training.forecaster import TrainingForecaster

    with TrainingForecaster(PATIENCE_S) as forecaster:
        yield ReportForecasts(forecaster)


def _log(found: "Report", page: str, card: str | None, workspace: "Workspace", mlflow: "ResolvedMlflow") -> None:
    """Log the page to MLflow; where that cannot be, a later command does."""
    from pipeline.errors import WorkspaceError
    from pipeline.reports.report_run import keep
    from pipeline.tracking.delivery import Tracker

    tracker = Tracker(mlflow, workspace, on_problem=lambda line: complain(f"warning: {line}"))
    try:
        identity = keep(found, page, card, tracker)
    except WorkspaceError as error:  # a workspace that cannot be written can be reported on
        complain(f"warning: not logged to MLflow: {error}")
        return
    complain(f"in MLflow: {tracker.location(identity)}")
