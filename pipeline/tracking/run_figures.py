"""What a run's journals say of it, as one row: what people sort and choose runs by."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.suggestions import nearest
from pipeline.errors import ConfigError
from pipeline.tracking import journal

Value = int | float | str
_MEMORY = ("peak_memory_mb", "system/process_tree_memory_megabytes")
"""Runs of earlier versions have only the second, and not if they were short."""

COLUMNS = (
    "name", "model", "seed", "epochs", "status", "accuracy", "validation", "loss", "parameters", "minutes",
    "images_per_s", "memory_mb", "started",
)  # fmt: skip
"""The columns of the list, beside the id in MLflow and whether it is delivered."""


@dataclass(frozen=True)
class RunFigures:
    """The columns, where they are known; and everything else that the journals hold: settings and last metrics."""

    columns: Mapping[str, Value]
    others: Mapping[str, Value]

    def get(self, name: str) -> Value | None:
        """A column, a setting such as `train.epochs`, or a metric such as `test/ece`; None where it is not known."""
        return self.columns.get(name, self.others.get(name))


def read(name: str, status: str, journals: Iterable[tuple[Path, int]]) -> RunFigures:
    """The figures of a run from its journals, each with how much of it is durable."""
    last: dict[str, Value] = {}
    best, memory, times = -math.inf, -math.inf, []
    for path, upto in journals:
        for event in journal.read(path, end=upto):
            times.append(event.time_ms)
            if event.kind not in ("params", "metrics"):
                continue
            values = event.content["values"]
            last |= {key: _plain(value) for key, value in values.items()}
            if event.kind == "metrics":
                best = max(best, values.get("validation/accuracy", -math.inf))
                memory = max(memory, *(values.get(name, -math.inf) for name in _MEMORY))
    known: dict[str, Value | None] = {
        "name": name,
        "model": last.get("model.name"),
        "seed": last.get("seed"),
        "epochs": last.get("train.epochs"),
        "status": status,
        "accuracy": last.get("test/accuracy"),
        "validation": best if math.isfinite(best) else None,
        "loss": last.get("test/loss"),
        "parameters": last.get("model.parameters"),
        "minutes": round((max(times) - min(times)) / 60_000, 1) if times else None,
        "images_per_s": last.get("images_per_second"),
        "memory_mb": memory if math.isfinite(memory) else None,
        "started": _when(min(times)) if times else None,
    }
    return RunFigures({column: value for column, value in known.items() if value is not None}, last)


def _plain(value: object) -> Value:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _when(milliseconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))


# -- choosing and sorting

_OPERATORS: Mapping[str, Callable[[Value, Value], bool]] = {
    "!=": lambda left, right: left != right,
    ">=": lambda left, right: left >= right,  # type: ignore[operator]
    "<=": lambda left, right: left <= right,  # type: ignore[operator]
    "=": lambda left, right: left == right,
    ">": lambda left, right: left > right,  # type: ignore[operator]
    "<": lambda left, right: left < right,  # type: ignore[operator]
}
_CONDITION = re.compile(
    r"""\s*(?P<name>[\w./-]+)\s*(?P<operator>!=|>=|<=|==|=|>|<)\s*(?P<value>"[^"]*"|'[^']*'|[^\s"']+)\s*"""
)
_AND = re.compile(r"\band\b\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """`accuracy > 0.9`: a run that does not know the figure does not meet it."""

    name: str
    operator: str
    value: Value

    def holds(self, run: RunFigures) -> bool:
        """Whether a run meets it; figures and words are compared as such."""
        found = run.get(self.name)
        if found is None:
            return False
        wanted = self.value
        if isinstance(found, str) != isinstance(wanted, str):
            if self.operator not in ("=", "!="):
                return False
            found, wanted = str(found), str(wanted)
        return _OPERATORS[self.operator](found, wanted)


def conditions(text: str) -> list[Condition]:
    """Read `model=small and accuracy>0.9`.

    Raises:
        ConfigError: it is written otherwise; the message says where.
    """
    found: list[Condition] = []
    at = 0
    while at < len(text) or not found:
        match = _CONDITION.match(text, at)
        if match is None:
            raise ConfigError(
                f"--where: cannot read {text[at:].strip()!r}; write it as in `model=small and accuracy>0.9`"
            )
        operator = match["operator"].replace("==", "=")
        found.append(Condition(match["name"], operator, _value(match["value"])))
        at = match.end()
        if at < len(text):
            joined = _AND.match(text, at)
            if joined is None or joined.end() == len(text):
                raise ConfigError(f"--where: {text[at:].strip()!r}: join conditions by `and`, and end with one")
            at = joined.end()
    return found


def check_known(names: Iterable[str], runs: Sequence[RunFigures]) -> None:
    """Raise `ConfigError` for a name that is no column and that no run knows."""
    known = dict.fromkeys(COLUMNS)
    for run in runs:
        known |= dict.fromkeys(run.others)
    for name in names:
        if name not in known:
            raise ConfigError(f"no run has {name!r}{nearest(name, list(known))}; columns: {', '.join(COLUMNS)}")


def sort_key(run: RunFigures, name: str) -> tuple[int, float, str]:
    """The order by a column: largest figures first, words from a to z, the runs that do not know it last."""
    value = run.get(name)
    if value is None:
        return 2, 0.0, ""
    return (1, 0.0, value) if isinstance(value, str) else (0, -float(value), "")


def _value(text: str) -> Value:
    if text[0] in "\"'":
        return text[1:-1]
    try:
        return float(text)
    except ValueError:
        return text
