"""The results of a search as files: the best config, a table of the trials, and two plots; and its rows in words."""

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


@dataclass(frozen=True)
class SearchReport:
    """The files of a search, each with the folder that MLflow shows it in."""

    best_config: Path | None
    files: tuple[tuple[Path, str], ...]
    importances: Mapping[str, float]
    """The share of the variance that each parameter explains; empty with too few trials to say."""


def write(folder: Path, base: RunConfig, space: Space, rows: Sequence[Row], best: Row | None) -> SearchReport:
    """Write the result files of a search into its folder.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    from tuning.sampler import history, importances

    table = [as_record(row) for row in rows]
    write_json(folder / "trials.json", table)
    write_atomically(folder / TABLE, _csv(table, space).encode())
    files = [(folder / TABLE, ""), (folder / "trials.json", "")]
    best_config = None
    if best is not None:
        best_config = folder / BEST_FILE
        epochs = as_record(best)["epochs"]
        head = f"# trial {best.number} of {len(rows)}: validation accuracy {best.score:.4f}, {epochs} epochs\n"
        write_atomically(best_config, (head + to_yaml(configuration(base, best.config))).encode())
        files.append((best_config, ""))
    shares = importances(rows, space, "max")
    if points := history(rows, "max"):
        files += [(path, "plots") for path in _draw(folder / "plots", points, rows, shares)]
    return SearchReport(best_config, tuple(files), shares)


def as_record(row: Row) -> dict[str, Any]:
    """A row in plain values, for JSON."""
    finish = row.finish
    return {
        "trial": row.number,
        "outcome": row.outcome or "unfinished",
        "validation_accuracy": finish.value if finish else None,
        "epochs": finish.epochs if finish else row.last_epoch,
        "seconds": round(finish.duration_s, 1) if finish else None,
        "peak_memory_mb": round(finish.peak_mb, 1) if finish and not finish.is_forecast else None,
        "memory_cap_mb": finish.cap_mb if finish else None,
        "forecast_memory_mb": round(finish.peak_mb, 1) if finish and finish.is_forecast else row.forecast_mb,
        "fitted": row.fitted or None,
        "node": row.node,
        "precision": row.facts.get("precision"),
        "kernel": row.facts.get("kernel"),
        "origin": row.origin,
        "error": finish.error if finish and finish.error else None,
        "config": dict(row.config),
    }


def memory_in_words(finish: Finish) -> str:
    """The memory of a capped trial; below its cap where an allocation was refused."""
    if finish.is_forecast:
        return f"{finish.error} MB: not started"
    if finish.peak_mb >= finish.cap_mb:
        return f"held {finish.peak_mb:.0f} MB, cap {finish.cap_mb:.0f} MB"
    return f"held {finish.peak_mb:.0f} MB and asked for more than its cap of {finish.cap_mb:.0f} MB"


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The completed rows by value, then the others by value; equal ones by number."""

    def rank(row: Row) -> tuple[bool, float, int]:
        value = row.finish.value if row.finish and row.finish.value is not None else -1.0
        return row.outcome != "completed", -value, row.number

    return sorted(rows, key=rank)


def settings_in_words(row: Row, default: Mapping[str, Any] | None = None) -> str:
    """The settings of a row in a line; with `default`, only those that differ from it."""
    shown = {
        key: value
        for key, value in row.config.items()
        if default is None or json.dumps(default.get(key)) != json.dumps(value)
    }
    if not shown:
        return "the default config"
    return ", ".join(f"{key.rpartition('.')[2]} {value_in_words(value)}" for key, value in shown.items())


def importances_in_words(shares: Mapping[str, float]) -> str:
    """The three most important parameters: `train.learning_rate 60 %, model.hidden 30 %, ...`."""
    return ", ".join(f"{key} {100 * share:.0f} %" for key, share in list(shares.items())[:3])


def description(
    config: RunConfig, rows: Sequence[Row], space: Space, shares: Mapping[str, float], command: str
) -> str:
    """The description of the search's run in MLflow, in Markdown; `shares` are the importances of the parameters."""
    name = f"**{config.model.name}**, {len(config.data.class_names)} classes, {config.train.epochs} epochs"
    lines = [f"{name}: {len(rows)} trials over {', '.join(f'`{key}`' for key in space)}.", ""]
    best = [row for row in ranked(rows)[:5] if row.score is not None]
    if best:
        lines += ["| trial | validation accuracy | settings |", "| --- | --- | --- |"]
        lines += [f"| {row.number:03d} | {row.score:.4f} | {settings_in_words(row)} |" for row in best]
        lines += ["", f"The best one's config is among the artifacts: `{command} run all --config {BEST_FILE}`"]
    if shares:
        lines += ["", f"What made the difference: {importances_in_words(shares)}."]
    return "\n".join(lines)


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
    folder: Path, points: Sequence[tuple[int, float, float]], rows: Sequence[Row], shares: Mapping[str, float]
) -> list[Path]:
    """Draw the value of each trial, and the importance of each parameter."""
    from pipeline.evaluation.chart_style import save_figure
    from pipeline.search import plots

    drawn = {"history.png": plots.history(points, rows)}
    if shares:
        drawn["importance.png"] = plots.importance(shares)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            save_figure(figure, folder / name)
    return [folder / name for name in drawn]
