"""What is known of a search: its trials, the best one, what made the difference, memory, and who computed what."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.search.report import BEST_FILE, as_record, ranked
from pipeline.search.store import StoredSearch
from tuning.errors import SpaceError
from tuning.ledger import Row
from tuning.space import Space


@dataclass(frozen=True)
class NodeWork:
    """What one node did: for a search, or as trainings."""

    node: str
    trials: int
    epochs: int
    seconds: float
    peak_mb: float
    """The largest peak memory of one of them."""
    computes_with: str
    """Precision and kernel, where they are known."""


@dataclass(frozen=True)
class SearchFacts:
    """A search of this workspace, as its ledger has it now."""

    search: StoredSearch
    rows: tuple[Row, ...]
    space: Space | None
    """None if this version cannot read it."""
    cap_mb: float | None
    """The memory cap of a trial that was decided last."""
    points: tuple[tuple[int, float, float], ...]
    """Number, validation accuracy and best one so far of the completed trials."""
    importances: Mapping[str, float]
    """The share of the variance that each parameter explains; empty with too few trials to say."""
    run_id: str | None
    """In MLflow."""

    @property
    def name(self) -> str:
        """As `seqpipe tune` and `seqpipe status` show it."""
        return self.search.folder.name

    @property
    def best(self) -> Row | None:
        """The completed trial with the highest value."""
        return next((row for row in ranked(self.rows) if row.score is not None), None)

    @property
    def default(self) -> Row | None:
        """Trial 0, which has the config as it was given."""
        return self.rows[0] if self.rows else None

    @property
    def best_config(self) -> Path | None:
        """The file with the settings of the best trial, once a command has ended in results."""
        path = self.search.folder / BEST_FILE
        return path if path.is_file() else None

    @property
    def outcomes(self) -> dict[str, int]:
        """How many trials ended in which way, the most frequent first."""
        return dict(Counter(row.outcome or "unfinished" for row in self.rows).most_common())

    @property
    def memory(self) -> list[tuple[float, float]]:
        """Forecast and measured peak of each trial that has both, in MB."""
        return [
            (row.forecast_mb, row.finish.peak_mb)
            for row in self.rows
            if row.forecast_mb and row.finish and not row.finish.is_forecast and row.finish.peak_mb
        ]

    @property
    def nodes(self) -> list[NodeWork]:
        """What each node did, the busiest first."""
        of: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.finish is not None and not row.finish.is_forecast:
                of.setdefault(row.finish.node or row.node, []).append(row)
        found = [_work(node, rows) for node, rows in of.items()]
        return sorted(found, key=lambda one: -one.seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "search": self.name,
            "model": self.search.model,
            "begun": self.search.created,
            "state": self.search.state,
            "run_id": self.run_id,
            "target": self.search.status.target,
            "outcomes": self.outcomes,
            "trial_memory_mb": self.cap_mb,
            "space": self.space.to_json() if self.space else None,
            "best": as_record(self.best) if self.best else None,
            "best_config": str(self.best_config) if self.best_config else None,
            "importances": dict(self.importances),
            "nodes": [asdict(one) for one in self.nodes],
            "trials": [as_record(row) for row in self.rows],
        }


def read_search(search: StoredSearch, run_id: str | None = None) -> SearchFacts:
    """Read a search from its ledger, which a command may be writing."""
    from tuning import ledger, sampler

    contents = ledger.read(search.folder)
    rows = tuple(contents.rows) if contents else ()
    try:
        space = Space.parse(search.identity["space"])
    except (SpaceError, KeyError, TypeError):  # of another version
        space = None
    return SearchFacts(
        search=search,
        rows=rows,
        space=space,
        cap_mb=contents.cap_mb if contents else None,
        points=tuple(sampler.history(rows, "max")),
        importances=sampler.importances(rows, space, "max") if space else {},
        run_id=run_id,
    )


def _work(node: str, rows: list[Row]) -> NodeWork:
    ends = [row.finish for row in rows if row.finish is not None]
    means = Counter(
        ", ".join(row.facts[name] for name in ("precision", "kernel") if name in row.facts) for row in rows
    )
    return NodeWork(
        node=node,
        trials=len(ends),
        epochs=sum(end.epochs for end in ends),
        seconds=sum(end.duration_s for end in ends),
        peak_mb=max(end.peak_mb for end in ends),
        computes_with="; ".join(one for one in means if one),
    )
