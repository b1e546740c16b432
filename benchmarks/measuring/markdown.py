"""Tables as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table with a line above and lines below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"**{self.title}**", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row(row) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def milliseconds(times: dict[str, Any]) -> str:
    """A median with three digits."""
    return three_digits(times["median_ms"])


def three_digits(value: float) -> str:
    """1234.5 -> 1234, 12.345 -> 12.3, 1.2345 -> 1.23."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def times(ratio: dict[str, Any]) -> str:
    """A speedup and its quartiles."""
    return f"{ratio['speedup']:.2f}x ({ratio['speedup_quartile_1']:.2f} to {ratio['speedup_quartile_3']:.2f})"


def percent(share: float, digits: int = 0) -> str:
    """0.4821 -> 48 %."""
    return f"{100 * share:.{digits}f} %"


def machine_in_words(machine: dict[str, Any]) -> str:
    """One line of it, to stand under a table."""
    before, after = machine["load_before"][0], machine["load_after"][0]
    return (
        f"{machine['processor']} ({', '.join(machine['has'])}; torch uses {machine['torch_uses']}), "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, "
        f"torch {machine['torch']}, {machine['threads']} threads, kernel {machine['kernel']}; "
        f"load average {before} before, {after} after; {machine['date']}"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
