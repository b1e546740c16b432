"""How far a search is, in the figures that `cluster status` shows."""

from tuning.cluster.node_record import SearchSummary
from tuning.observer import Snapshot


def summary(name: str, snapshot: Snapshot) -> SearchSummary:
    """The rate is that of the trials that ran in this run of the search, once one has ended."""
    done = sum(row.finish is not None for row in snapshot.rows)
    ran = done - snapshot.done_before
    return SearchSummary(
        name,
        done,
        snapshot.target,
        best=snapshot.best.score if snapshot.best else None,
        trials_per_hour=round(3600 * ran / snapshot.elapsed_s, 1) if ran and snapshot.elapsed_s > 0 else None,
    )
