"""Garbage collection: removes what the retention rule does not keep."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SeqpipeError
from pipeline.maintenance import retention
from pipeline.maintenance.retention import Decision
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.registry import registered_run_keys
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.durable_files import writing
from pipeline.workspace.locks import if_free
from pipeline.workspace.manifests import remove_folder
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class Collected:
    """What was decided about everything, and what was removed (or would be, in a dry run)."""

    decisions: Sequence[Decision]
    removed: Sequence[Decision]

    @property
    def bytes(self) -> int:
        """The size of what was removed."""
        return sum(one.bytes for one in self.removed)


def collect(
    workspace: Workspace, settings: ResolvedMlflow, on_problem: Callable[[str], None], *, dry_run: bool
) -> Collected:
    """Remove what nothing needs; in a dry run only decide.

    `on_problem` gets a line if the registry cannot be asked: what may be registered is kept then.
    """

    def registered_keys() -> frozenset[str] | None:
        try:
            return registered_run_keys(StoreConnection(settings, workspace, on_problem))
        except SeqpipeError as error:
            on_problem(f"the registry cannot be asked ({error}); what may be registered stays")
            return None

    decisions = retention.decide(workspace, settings.address, registered_keys)
    removed = [one for one in decisions if one.removable] if dry_run else remove(decisions)
    return Collected(decisions, removed)


def remove(decisions: Iterable[Decision]) -> list[Decision]:
    """Remove what is removable and is not in use by now; what was removed."""
    return [one for one in decisions if one.removable and _remove_if_free(one)]


def _remove_if_free(decision: Decision) -> bool:
    with writing(decision.path):
        if decision.lock is None:
            _remove(decision.path)
            return True
        decision.lock.parent.mkdir(parents=True, exist_ok=True)
        with if_free(decision.lock) as free:
            if free:
                _remove(decision.path)
            return free


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)
