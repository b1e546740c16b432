"""Everything that a report shows, gathered before any of it is drawn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.counts import counted
from pipeline.errors import ConfigError, WorkspaceError
from pipeline.reports.comparison_words import letter
from pipeline.reports.group_facts import Forecast, GroupFacts, with_forecast
from pipeline.reports.report_choice import Choice, Chooser
from pipeline.reports.run_comparison import RunComparison, compare_sides
from pipeline.reports.search_facts import NodeWork, SearchFacts, read_search
from pipeline.reports.training_facts import TrainingFacts, read_training
from pipeline.tracking.run_list import REPORT_KEY
from pipeline.workspace.fingerprints import fingerprint

COMPARED = 4
"""Groups that the best one is compared with; more would be a page of their own (`seqpipe runs compare`)."""


@dataclass(frozen=True)
class Pair:
    """The best group compared with another one on the same test images."""

    first: GroupFacts
    second: GroupFacts
    comparison: RunComparison | None
    why_not: str = ""
    """Why they cannot be compared."""


@dataclass(frozen=True)
class Report:
    """A report: groups of trainings from the best on validation images to the worst, comparisons, and searches."""

    groups: tuple[GroupFacts, ...]
    pairs: tuple[Pair, ...]
    searches: tuple[SearchFacts, ...]
    created: str
    """When it was made, with its time zone."""
    workspace: Path

    @property
    def key(self) -> str:
        """Names the report by what it is about: made again, it is the same one."""
        return f"{REPORT_KEY}{fingerprint('report', 1, {'about': self.about}, {})}"

    @property
    def about(self) -> list[str]:
        """The keys of its trainings and the ids of its searches."""
        return sorted([*(one.run.key for one in self.trainings), *(one.name for one in self.searches)])

    @property
    def trainings(self) -> list[TrainingFacts]:
        """Of all groups."""
        return [one for group in self.groups for one in group.trainings]

    @property
    def title(self) -> str:
        """`5 trainings and 1 search`; a single thing by its name."""
        if len(self.groups) == 1 and not self.searches:
            return self.groups[0].title.partition(": ")[2]
        counts = [(len(self.trainings), "training", "trainings"), (len(self.searches), "search", "searches")]
        return " and ".join(counted(number, one, many) for number, one, many in counts if number)

    @property
    def best(self) -> TrainingFacts | None:
        """The training that did best on validation images; of registered versions from elsewhere, the first one."""
        trainings = self.trainings
        return max(trainings, key=lambda one: _or_least(one.validation_accuracy), default=None)

    @property
    def group_of_best(self) -> GroupFacts | None:
        """The group of `best`."""
        return next((group for group in self.groups if self.best in group.trainings), None)

    @property
    def nodes(self) -> list[NodeWork]:
        """What each laptop trained, searches aside."""
        of: dict[str, list[TrainingFacts]] = {}
        for one in self.trainings:
            if one.run.trained is not None:
                of.setdefault(one.node, []).append(one)
        return [_work(node, trainings) for node, trainings in of.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "report": self.key,
            "title": self.title,
            "created": self.created,
            "workspace": str(self.workspace),
            "groups": [group.to_json() for group in self.groups],
            "comparisons": [
                {
                    "first": pair.first.letter,
                    "second": pair.second.letter,
                    "comparison": pair.comparison.to_json() if pair.comparison else None,
                    "why_not": pair.why_not or None,
                }
                for pair in self.pairs
            ],
            "searches": [search.to_json() for search in self.searches],
        }


def gather(
    choice: Choice, chooser: Chooser, created: str, forecast: Forecast | None, note: Callable[[str], None]
) -> Report:
    """Read everything that is chosen; `note` gets a line before what takes seconds. Without `forecast`, none."""
    workspace = chooser.finder.workspace
    groups = _lettered([tuple(read_training(run, workspace) for run in group) for group in choice.groups])
    pairs = tuple(_pair(groups[0], other) for other in groups[1 : 1 + COMPARED])
    if forecast is not None and groups:
        note("forecasting the trainings for this machine")
        groups = [with_forecast(group, forecast) for group in groups]
    searches = tuple(read_search(search, chooser.run_id(search)) for search in choice.searches)
    return Report(tuple(groups), pairs, searches, created, workspace.root)


def _lettered(found: Sequence[tuple[TrainingFacts, ...]]) -> list[GroupFacts]:
    groups = [GroupFacts("", trainings) for trainings in found]
    groups.sort(key=lambda group: -_or_least(group.validation.mean if group.validation else None))
    return [GroupFacts(letter(number), group.trainings) for number, group in enumerate(groups)]


def _pair(first: GroupFacts, second: GroupFacts) -> Pair:
    for group in (first, second):
        if not group.side.runs:
            return Pair(first, second, None, f"{group.letter} has no predictions of the test images here")
    try:
        return Pair(first, second, compare_sides([first.side, second.side]))
    except (ConfigError, WorkspaceError) as error:
        return Pair(first, second, None, str(error))


def _work(node: str, trainings: Sequence[TrainingFacts]) -> NodeWork:
    of = [one.run.trained for one in trainings if one.run.trained is not None]
    means = dict.fromkeys(_computes_with(one.numerics) for one in of)
    return NodeWork(
        node=node,
        trials=len(of),
        epochs=sum(one.epochs for one in of),
        seconds=sum(one.trained_s for one in of),
        peak_mb=max(one.peak_memory_mb for one in of),
        computes_with="; ".join(one for one in means if one),
    )


def _computes_with(numerics: Any) -> str:
    parts = [numerics.get("cpu"), numerics.get("device"), numerics.get("precision")]
    threads = numerics.get("threads")
    parts.append(counted(threads, "thread") if threads else None)
    parts.append(str(numerics["recurrence"]).partition(" ")[0] + " LSTM" if numerics.get("recurrence") else None)
    return ", ".join(str(part) for part in parts if part)


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value
