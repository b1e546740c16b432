"""A report as a run in MLflow, so that it lies beside the trainings that it is about.

    .seqpipe/reports/<key>/report.html, model_card.md, journal.jsonl

The key says what the report is about: made again, it is the same run with a newer page.
"""

from pipeline.reports.report_facts import Report
from pipeline.reports.report_words import TABLE_COLUMNS, table_row
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.workspace.durable_files import write_atomically, writing
from pipeline.workspace.locks import exclusive

PAGE, CARD = "report.html", "model_card.md"


def keep(report: Report, page: str, card: str | None, tracker: Tracker) -> RunIdentity:
    """Keep the page in the workspace, and deliver it as far as the store takes it; never fails for the store's sake.

    Raises:
        WorkspaceError: the workspace cannot be written.
    """
    workspace = tracker.workspace
    identity = RunIdentity(report.key, f"report on {report.title}")
    folder = workspace.hidden / "reports" / report.key
    with exclusive(workspace.lock(report.key), lambda text: None, what=f"the report {report.key}"):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files = {PAGE: page, **({CARD: card} if card is not None else {})}
        for name, content in files.items():
            write_atomically(folder / name, content.encode())
        with Journal(folder) as journal:
            journal.tags(
                {
                    "mlflow.source.name": "seqpipe report",
                    "mlflow.note.content": _note(report),
                    "seqpipe.kind": "report",
                    "seqpipe.about": ", ".join(report.about),
                }
            )
            for name in files:
                journal.artifact(folder / name)
        tracker.record(identity, report.key, folder, status="FINISHED")
    tracker.deliver_recorded(identity.key)
    return identity


def _note(report: Report) -> str:
    """The description of the run: the report's table, in Markdown."""
    lines = [f"Report on {report.title}, made on {report.created}: `{PAGE}` among the artifacts."]
    if report.groups:
        rows = [list(TABLE_COLUMNS), ["---"] * len(TABLE_COLUMNS), *map(table_row, report.groups)]
        lines += ["", *(f"| {' | '.join(cells)} |" for cells in rows)]
    return "\n".join(lines)
