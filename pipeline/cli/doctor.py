"""`seqpipe doctor`: is this machine fit, and is what lies here what it should be?"""

from typing import TYPE_CHECKING

import typer

from pipeline.cli import options
from pipeline.cli.console import emit_json, table

if TYPE_CHECKING:
    from pipeline.maintenance.doctor import Finding


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("doctor")(doctor)


def doctor(as_json: options.Json = False) -> None:
    """Check Python, torch, the processor, memory, disk, the MLflow store and the data set. Exit code 6 if unfit."""
    from pipeline.errors import MachineUnfitError
    from pipeline.maintenance import doctor as checks
    from pipeline.workspace.paths import Workspace

    findings: list[Finding] = checks.examine(Workspace.find())
    if as_json:
        emit_json({"findings": [finding.to_json() for finding in findings]})
    else:
        table(["", "what", "found"], [[one.verdict, one.what, one.found] for one in findings])
    bad = [one for one in findings if one.verdict == "bad"]
    if bad:
        raise MachineUnfitError(f"{len(bad)} of {len(findings)} checks failed: {', '.join(one.what for one in bad)}")
