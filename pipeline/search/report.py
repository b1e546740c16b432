"""What a search came to, as files: the best config, a table of the trials, and two plots."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.keys import to_yaml
from pipeline.config.schema import RunConfig
from pipeline.search.space import configuration, value_in_words
from pipeline.workspace.durable_files import write_atomically, write_json, writing
from tuning.ledger import Finish, Row
from tuning.space import Space

BEST_FILE = "best.yaml"
TABLE = "trials.csv"
SHOWN = 10


@dataclass(frozen=True)
class SearchReport:
    """A search's files, each with the folder that MLflow shows it in."""

    best_config: Path | None
    files: tuple[tuple[Path, str], ...]
    importances: Mapping[str, float]
    """How much of the spread each parameter explains; empty with too few trials to tell."""


def write(folder: Path, base: RunConfig, space: Space, rows: Sequence[Row], best: Row | None) -> SearchReport:
    """Write the files of a search that has these rows into its folder.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    from tuning.sampler import history, importances

    files: list[tuple[Path, str]] = []
    table = [as_record(row) for row in rows]
    write_json(folder / "trials.json", table)
    write_atomically(folder / TABLE, _csv(table, space).encode())
    files += [(folder / TABLE, ""), (folder / "trials.json", "")]
    best_config = None
    if best is not None and best.finish is not None and best.finish.value is not None:
        best_config = folder / BEST_FILE
        head = (
            f"# trial {best.number} of {len(rows)}: validation accuracy {best.finish.value:.4f}, "
            f"{best.finish.epochs} epochs\n"
        )
        write_atomically(best_config, (head + to_yaml(configuration(base, best.config))).encode())
        files.append((best_config, ""))
    telling = importances(rows, space, "max")
    points = history(rows, "max")
    if points:
        files += [(path, "plots") for path in _draw(folder / "plots", points, rows, telling)]
    return SearchReport(best_config, tuple(files), telling)


def as_record(row: Row) -> dict[str, Any]:
    """A row in plain values, for JSON."""
    finish = row.finish
    return {
        "trial": row.number,
        "outcome": finish.outcome if finish else "unfinished",
        "validation_accuracy": finish.value if finish else None,
        "epochs": finish.epochs if finish else row.last_epoch,
        "seconds": round(finish.duration_s, 1) if finish else None,
        "peak_memory_mb": round(finish.peak_mb, 1) if finish else None,
        "memory_cap_mb": finish.cap_mb if finish else None,
        "node": row.node,
        "origin": row.origin,
        "error": finish.error if finish and finish.error else None,
        "config": dict(row.config),
    }


def memory_in_words(finish: Finish) -> str:
    """What a capped trial held; a refused allocation leaves it below its cap."""
    if finish.peak_mb >= finish.cap_mb:
        return f"held {finish.peak_mb:.0f} MB, cap {finish.cap_mb:.0f} MB"
    return f"held {finish.peak_mb:.0f} MB and asked for more than its cap of {finish.cap_mb:.0f} MB"


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows, the completed ones first, each kind by its value, then by number."""

    def rank(row: Row) -> tuple[bool, float, int]:
        finish = row.finish
        value = finish.value if finish and finish.value is not None else -1.0
        return not (finish and finish.outcome == "completed"), -value, row.number

    return sorted(rows, key=rank)


def settings_in_words(row: Row, default: Mapping[str, Any] | None = None) -> str:
    """A row's configuration in a line; only what is not as in `default`, where that is given."""
    told = {
        key: value
        for key, value in row.config.items()
        if default is None or _plain(default.get(key)) != _plain(value)
    }
    if not told:
        return "the default config"
    return ", ".join(f"{key.rpartition('.')[2]} {value_in_words(value)}" for key, value in told.items())


def note(name: str, rows: Sequence[Row], space: Space, telling: Mapping[str, float], command: str) -> str:
    """What the search's page in MLflow says, in Markdown."""
    lines = [f"{name}: {len(rows)} trials over {', '.join(f'`{key}`' for key in space)}.", ""]
    best = [row for row in ranked(rows)[:5] if row.finish and row.finish.outcome == "completed"]
    if best:
        lines += ["| trial | validation accuracy | settings |", "| --- | --- | --- |"]
        lines += [
            f"| {row.number:03d} | {row.finish.value:.4f} | {settings_in_words(row)} |"
            for row in best
            if row.finish and row.finish.value is not None
        ]
        lines += ["", f"The best one's config is among the artifacts: `{command} run all --config {BEST_FILE}`"]
    if telling:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in list(telling.items())[:3])
        lines += ["", f"What made the difference: {shares}."]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return json.dumps(value)


def _csv(table: Sequence[Mapping[str, Any]], space: Space) -> str:
    columns = [key for key in (table[0] if table else {"trial": None}) if key != "config"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *space])
    for record in table:
        values = [record["config"].get(key) for key in space]
        writer.writerow(
            [record[column] for column in columns]
            + [json.dumps(value) if isinstance(value, list) else value for value in values]
        )
    return text.getvalue()


def _draw(
    folder: Path, points: Sequence[tuple[int, float, float]], rows: Sequence[Row], telling: Mapping[str, float]
) -> list[Path]:
    """The plots: what each trial reached, and what mattered."""
    from pipeline.evaluation.plots import save_figure
    from pipeline.search import plots

    drawn = {"history.png": plots.history(points, rows)}
    if telling:
        drawn["importance.png"] = plots.importance(telling)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            save_figure(figure, folder / name)
    return [folder / name for name in drawn]
