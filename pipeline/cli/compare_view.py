"""What `seqpipe runs compare` shows as text."""

from typing import TYPE_CHECKING

from pipeline.cli.console import emit, table

if TYPE_CHECKING:
    from pipeline.reports.run_comparison import RunComparison
    from pipeline.reports.validation_comparison import ValidationComparison


def show(found: "RunComparison | ValidationComparison") -> None:
    """Every section: its table under its heading, then its lines."""
    from pipeline.reports.comparison_words import sections

    for number, section in enumerate(sections(found)):
        if number:
            emit()
        if section.columns:
            table(section.columns, section.rows, title=section.heading)
        else:
            emit(section.heading)
        for line in section.lines:
            emit(f"  {line}")
