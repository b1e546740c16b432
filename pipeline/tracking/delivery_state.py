"""Delivery state: what each run should have in MLflow, and how far each store has got.

    .seqpipe/runs/<key>.json              the run: name, status, journals, and how far each is durable
    .seqpipe/runs/<key>@<address>.json    what the store at an address (a digest of it) has, and its id of the run

So an outage, a kill or a lost store costs nothing: what a store lacks is delivered later, from the journals. The
process that works on a run writes the first file, the one that delivers it the second. If the first is lost, it is
rebuilt from the training's stage folders (`training_folders`), and the store's own run is found by its key. Nothing
here imports MLflow, so looking is cheap.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.tracking import training_folders
from pipeline.tracking.journal import FILE_NAME
from pipeline.workspace.durable_files import write_json, writing
from pipeline.workspace.locks import is_held
from pipeline.workspace.paths import Workspace

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_TAIL_BYTES = 1024


@dataclass
class JournalRecord:
    """A journal of a run: its stage folder, and how far it may be delivered."""

    folder: str
    upto: int


@dataclass
class Delivered:
    """How much of a journal a store has; `tail` is a digest of the last bytes of that part."""

    offset: int
    tail: str


@dataclass
class StoreRecord:
    """What one store has of a run."""

    address: str
    run_id: str
    experiment_id: str
    status: Status = "RUNNING"
    last_event_ms: int = 0
    delivered: dict[str, Delivered] = field(default_factory=dict)
    parent: str = ""
    """The key of the run that it shows this one under, if this version of seqpipe told it so."""


@dataclass
class RunRecord:
    """What every store should have of a run."""

    key: str
    name: str
    status: Status = "RUNNING"
    journals: dict[str, JournalRecord] = field(default_factory=dict)
    parent: str = ""
    """The key of the run that this one is shown under."""
    lock: str = ""
    """The name of the lock that the process working on the run holds."""
    is_moved: bool = False
    """Whether it got its parent after it had begun."""

    def is_pending_for(self, store: StoreRecord | None) -> bool:
        """Whether a store lacks something of the run."""
        if store is None:
            return bool(self.journals)
        sent = {name: delivered.offset for name, delivered in store.delivered.items()}
        return (
            store.status != self.status
            or self.lacks_parent(store)
            or any(sent.get(name, 0) < journal.upto for name, journal in self.journals.items())
        )

    def lacks_parent(self, store: StoreRecord) -> bool:
        """Whether a store that has the run shows it elsewhere than under its parent."""
        return self.is_moved and store.parent != self.parent


def run_path(workspace: Workspace, key: str) -> Path:
    """The file of a run's record."""
    return workspace.hidden / "runs" / f"{key}.json"


def store_path(workspace: Workspace, key: str, address: str) -> Path:
    """The file that says what one store has of a run."""
    return workspace.hidden / "runs" / f"{key}@{hashlib.sha256(address.encode()).hexdigest()[:12]}.json"


def read_run(workspace: Workspace, key: str) -> RunRecord | None:
    """A run's record, or None where there is none; a lost or damaged one is rebuilt from the training's folders."""
    return _read_run(workspace, key) or _rebuilt(workspace, key)


def _read_run(workspace: Workspace, key: str) -> RunRecord | None:
    try:
        content = json.loads(run_path(workspace, key).read_bytes())
        journals = {name: JournalRecord(**journal) for name, journal in content.pop("journals").items()}
        record = RunRecord(**content, journals=journals)
        record.lock = record.lock or _lock_of(journals)  # earlier versions did not record it
        return record
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_store(workspace: Workspace, key: str, address: str) -> StoreRecord | None:
    """What a store has of a run, or None where that is not known (the store is then searched for the run)."""
    return _read_store(store_path(workspace, key, address))


def write_run(workspace: Workspace, record: RunRecord) -> None:
    """Write a run's record, atomically."""
    _write(run_path(workspace, record.key), record)


def write_store(workspace: Workspace, key: str, record: StoreRecord) -> None:
    """Write what a store has of a run, atomically."""
    _write(store_path(workspace, key, record.address), record)


def forget_store(workspace: Workspace, address: str) -> None:
    """Forget everything that a store had: it is a new one."""
    for record in every(workspace):
        store_path(workspace, record.key, address).unlink(missing_ok=True)


def addresses(workspace: Workspace) -> set[str]:
    """The address of every store that a run of the workspace was delivered to."""
    return {store.address for _, store in _stores(workspace)}


def readdress_store(workspace: Workspace, old: str, new: str, run_ids: Collection[str]) -> None:
    """Move what a store has of its runs from its old address to its new one; records under the new one win."""
    for key, store in list(_stores(workspace)):
        if store.address == old:
            if store.run_id in run_ids and read_store(workspace, key, new) is None:
                store.address = new
                write_store(workspace, key, store)
            store_path(workspace, key, old).unlink(missing_ok=True)


def every(workspace: Workspace) -> Iterator[RunRecord]:
    """All runs of a workspace, by key."""
    keys = {path.stem for path in (workspace.hidden / "runs").glob("*.json") if "@" not in path.name}
    keys |= training_folders.run_keys(workspace)
    for key in sorted(keys):
        record = read_run(workspace, key)
        if record is not None:
            yield record


def open_runs(workspace: Workspace) -> list[RunRecord]:
    """The runs whose record says that they are running."""
    return [record for record in every(workspace) if record.status == "RUNNING"]


def is_worked_on(workspace: Workspace, record: RunRecord) -> bool:
    """Whether a process works on a run now; True where the record does not name the lock that it would hold."""
    return not record.lock or is_held(workspace.lock(record.lock))


def pending(workspace: Workspace, address: str, *, is_gone: bool = False) -> list[RunRecord]:
    """The runs that the store at an address lacks something of: all, if it is gone."""
    return [
        run
        for run in every(workspace)
        if run.is_pending_for(None if is_gone else read_store(workspace, run.key, address))
    ]


def journal_path(workspace: Workspace, journal: JournalRecord) -> Path | None:
    """The path of a journal, whose stage folder loses `.partial` when it is whole; None if it is gone."""
    folder = workspace.root / journal.folder
    for candidate in (folder, folder.with_name(folder.name.removesuffix(".partial"))):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    return None


def tail_digest(path: Path, offset: int) -> str:
    """A digest of the bytes before an offset, which shows whether a journal was rewritten."""
    start = max(0, offset - _TAIL_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(offset - start)).hexdigest()[:16]


def _lock_of(journals: Collection[str]) -> str:
    """The name of a run's lock, from the ids of its journals: `train/<hash>`, `search/<hash>/<row>`."""
    names = [name.split("/") for name in journals]
    return next(("-".join(parts[:2]) for parts in names if parts[0] in ("train", "search") and len(parts) > 1), "")


def _rebuilt(workspace: Workspace, key: str) -> RunRecord | None:
    found = training_folders.find_run(workspace, key)
    if found is None:
        return None
    journals = {
        one.journal_id: JournalRecord(one.folder.relative_to(workspace.root).as_posix(), one.upto)
        for one in found.journals
    }
    return RunRecord(
        key, found.name, "FINISHED" if found.is_finished else "RUNNING", journals, lock=_lock_of(journals)
    )


def _stores(workspace: Workspace) -> Iterator[tuple[str, StoreRecord]]:
    """The key of each run and what a store has of it, for every store."""
    for path in sorted((workspace.hidden / "runs").glob("*@*.json")):
        if (store := _read_store(path)) is not None:
            yield path.stem.rpartition("@")[0], store


def _read_store(path: Path) -> StoreRecord | None:
    try:
        content = json.loads(path.read_bytes())
        delivered = {name: Delivered(**one) for name, one in content.pop("delivered").items()}
        return StoreRecord(**content, delivered=delivered)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, record: RunRecord | StoreRecord) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))
