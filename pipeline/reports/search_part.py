"""The part of a report's page on one search: history, what made the difference, the best trials, memory, nodes."""

from collections.abc import Iterator

from pipeline.durations import readable
from pipeline.percent import percent
from pipeline.reports import page
from pipeline.reports.inline_svg import inline_svg
from pipeline.reports.report_words import NODE_COLUMNS, node_row
from pipeline.reports.search_facts import SearchFacts
from pipeline.search import plots
from pipeline.search.report import importances_in_words, memory_in_words, ranked, settings_in_words
from pipeline.search.space import in_words, value_in_words
from tuning.ledger import Row

SHOWN = 10
"""Trials in the table; `trials.csv` in the search's folder has all."""
TRIAL_COLUMNS = ("trial", "outcome", "validation accuracy", "epochs", "peak memory", "time", "on", "settings")


def search_part(facts: SearchFacts, name: str) -> str:
    """Everything on a search; `name` is unique on the page."""
    return "".join(_parts(facts, name))


def _parts(facts: SearchFacts, name: str) -> Iterator[str]:
    outcomes = ", ".join(f"{number} {outcome.replace('_', ' ')}" for outcome, number in facts.outcomes.items())
    search = facts.search
    yield page.facts(
        {
            "begun": search.created,
            "state": f"{search.state}, {search.status.in_words()}",
            "trials": outcomes,
            "run in MLflow": facts.run_id or "",
            "made the difference": importances_in_words(facts.importances) if facts.importances else "",
            "cap of a trial": f"{facts.cap_mb:.0f} MB" if facts.cap_mb else "",
        }.items()
    )
    yield page.charts(_charts(facts, name))
    if not facts.importances:
        yield page.text("Too few trials have completed to say which settings made the difference.", muted=True)
    yield from _best(facts)
    if facts.rows:
        rows = ranked(facts.rows)
        words = "The best trials" if len(rows) > SHOWN else "Trials"
        yield page.heading(3, words)
        yield page.table(words, TRIAL_COLUMNS, [_trial(row, facts) for row in rows[:SHOWN]])
        yield page.text("Settings: those that differ from trial 0, which has the config as it was given.", muted=True)
    if facts.nodes:
        yield page.heading(3, "Who computed what")
        yield page.table("Who computed what", NODE_COLUMNS, [node_row(one) for one in facts.nodes])
    if facts.space is not None:
        default = facts.default.config if facts.default else {}
        rows_of_space = [
            [key, in_words(parameter), value_in_words(default.get(key))] for key, parameter in facts.space.items()
        ]
        columns = ("setting", "what it may be", "trial 0")
        yield page.folded("The space that was searched", page.table("The space", columns, rows_of_space))


def _charts(facts: SearchFacts, name: str) -> Iterator[str]:
    if facts.points:
        best = max(value for _, value, _ in facts.points)
        alt = f"Validation accuracy of {len(facts.rows)} trials; the best {percent(best)}"
        yield inline_svg(plots.history(facts.points, facts.rows), f"{name}-history", alt)
    if facts.importances:
        alt = f"What made the difference: {importances_in_words(facts.importances)}"
        yield inline_svg(plots.importance(facts.importances), f"{name}-importance", alt)
    if facts.memory:
        ratios = [measured / forecast for forecast, measured in facts.memory]
        alt = f"Peak memory of {len(ratios)} trials, {min(ratios):.2f} to {max(ratios):.2f} times what was forecast"
        yield inline_svg(plots.memory(facts.memory, facts.cap_mb), f"{name}-memory", alt)


def _best(facts: SearchFacts) -> Iterator[str]:
    best, default = facts.best, facts.default
    if best is None:
        yield page.text("No trial has completed yet.")
        return
    than = ""
    if default is not None and default.score is not None and best.score is not None and best is not default:
        than = f", {100 * (best.score - default.score):+.2f} points from trial 0"
    yield page.text(f"Best: trial {best.number}, validation accuracy {percent(best.score)}{than}.")
    yield page.table(
        "The best settings",
        ("setting", "best", "trial 0"),
        [
            [key, value_in_words(value), value_in_words(default.config.get(key)) if default else "-"]
            for key, value in best.config.items()
        ],
    )
    if facts.best_config is not None:
        yield page.heading(3, "How to train with the best settings")
        yield page.code(f"seqpipe run all --config .seqpipe/searches/{facts.name}/{facts.best_config.name}")
        yield page.folded("All of its settings", page.code(facts.best_config.read_text().rstrip()))


def _trial(row: Row, facts: SearchFacts) -> list[str]:
    finish = row.finish
    memory = "-"
    if finish is not None:
        memory = memory_in_words(finish) if row.outcome == "memory_cap" else f"{finish.peak_mb:.0f} MB"
    default = facts.default.config if facts.default is not None and row is not facts.default else None
    return [
        str(row.number),
        (row.outcome or "unfinished").replace("_", " "),
        percent(finish.value if finish else None),
        str(finish.epochs if finish else row.last_epoch),
        memory,
        readable(finish.duration_s) if finish and not finish.is_forecast else "-",
        row.node or "-",
        settings_in_words(row, default) if row is not facts.default else "as given",
    ]
