"""`seqpipe doctor`: check the machine and the workspace."""

import typer

from pipeline.cli import options
from pipeline.cli.console import emit_json, table


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("doctor")(doctor)


def doctor(as_json: options.Json = False) -> None:
    """Check Python, torch, the processor, memory, disk, the MLflow store and the data set. Exit code 6 if unfit."""
    from pipeline.maintenance import doctor
    from pipeline.workspace.paths import Workspace

    findings = doctor.examine(Workspace.find())
    if as_json:
        emit_json({"findings": [finding.to_json() for finding in findings]})
    else:
        table(["", "what", "found"], [[one.severity, one.what, one.found] for one in findings])
    doctor.require_fit(findings)
