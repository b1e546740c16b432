"""What is known on disk of each run: what it should have been told, and what each store was told so far.

    .seqpipe/runs/<key>.json              what stores should be told: name, status, journals, how far each is durable
    .seqpipe/runs/<key>@<address>.json    what the store at an address (a digest of it) was told, and as which run

So an outage, a kill or a lost store costs nothing: what a store has not been told is told later, from the journals.
The first file is written by who makes the run, the second by who delivers. If the first is lost, a training's stage
folders say the same, and the store's own run is found by its key. Imports no MLflow, so asking is cheap.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.errors import WorkspaceError
from pipeline.tracking.journal import FILE_NAME
from pipeline.workspace.durable_files import write_json, writing
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import MANIFEST, read_manifest
from pipeline.workspace.paths import Workspace

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RUN_FILE = "run.json"
"""Which run a training's folder belongs to."""
_TRAIN, _EVALUATE, _SEARCH = "train", "evaluate", "search"
"""Whose journals there are; a training's run has those of both stages."""
_TAIL_BYTES = 1024


@dataclass
class JournalRecord:
    """A journal that belongs to a run: its stage folder, and how far it may be delivered."""

    folder: str
    upto: int


@dataclass
class Delivered:
    """How far a store was told a journal; `tail` is the digest of the last bytes of that part."""

    offset: int
    tail: str


@dataclass
class StoreRecord:
    """One store's run, and what it was told."""

    address: str
    run_id: str
    experiment_id: str
    status: Status = "RUNNING"
    last_event_ms: int = 0
    delivered: dict[str, Delivered] = field(default_factory=dict)


@dataclass
class RunRecord:
    """What stores should be told of a run."""

    key: str
    name: str
    status: Status = "RUNNING"
    journals: dict[str, JournalRecord] = field(default_factory=dict)
    parent: str = ""
    """The key of the run that this one is shown under."""
    lock: str = ""
    """The name of the lock that the process at work on the run holds."""

    def is_news_to(self, store: StoreRecord | None) -> bool:
        """Whether a store has still to be told something."""
        if store is None:
            return bool(self.journals)
        sent = {name: delivered.offset for name, delivered in store.delivered.items()}
        return store.status != self.status or any(
            sent.get(name, 0) < journal.upto for name, journal in self.journals.items()
        )


def run_path(workspace: Workspace, key: str) -> Path:
    """The file that says what stores should be told of a run."""
    return workspace.hidden / "runs" / f"{key}.json"


def store_path(workspace: Workspace, key: str, address: str) -> Path:
    """The file that says what one store was told of a run."""
    return workspace.hidden / "runs" / f"{key}@{hashlib.sha256(address.encode()).hexdigest()[:12]}.json"


def read_run(workspace: Workspace, key: str) -> RunRecord | None:
    """A run's record, or None where there is none.

    One that is lost or damaged is made again from the stage folder of its training.
    """
    return _read_run(workspace, key) or _retold(workspace, key)


def _read_run(workspace: Workspace, key: str) -> RunRecord | None:
    try:
        content = json.loads(run_path(workspace, key).read_bytes())
        journals = {name: JournalRecord(**journal) for name, journal in content.pop("journals").items()}
        record = RunRecord(**content, journals=journals)
        record.lock = record.lock or _lock_of(journals)  # records of earlier versions do not say it
        return record
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_store(workspace: Workspace, key: str, address: str) -> StoreRecord | None:
    """What a store was told of a run, or None where nothing is known (it is then searched for the run)."""
    return _read_store(store_path(workspace, key, address))


def write_run(workspace: Workspace, record: RunRecord) -> None:
    """Keep what stores should be told of a run, atomically."""
    _write(run_path(workspace, record.key), record)


def write_store(workspace: Workspace, key: str, record: StoreRecord) -> None:
    """Keep what a store was told of a run, atomically."""
    _write(store_path(workspace, key, record.address), record)


def forget_store(workspace: Workspace, address: str) -> None:
    """Forget all that a store was told: it is a new one."""
    for record in every(workspace):
        store_path(workspace, record.key, address).unlink(missing_ok=True)


def addresses(workspace: Workspace) -> set[str]:
    """The address of every store that a run of the workspace was delivered to."""
    return {store.address for _, store in _stores(workspace)}


def readdress_store(workspace: Workspace, old: str, new: str, run_ids: Collection[str]) -> None:
    """Know under a store's new address what it was told of its runs under the old one.

    What is known under the new address already stays.
    """
    for key, store in list(_stores(workspace)):
        if store.address == old:
            if store.run_id in run_ids and read_store(workspace, key, new) is None:
                store.address = new
                write_store(workspace, key, store)
            store_path(workspace, key, old).unlink(missing_ok=True)


def every(workspace: Workspace) -> Iterator[RunRecord]:
    """All runs of a workspace, by key."""
    keys = {path.stem for path in (workspace.hidden / "runs").glob("*.json") if "@" not in path.name}
    keys |= {run["key"] for path in workspace.stage(_TRAIN).glob("*") if (run := _run_of(path))}
    for key in sorted(keys):
        record = read_run(workspace, key)
        if record is not None:
            yield record


def is_finished(workspace: Workspace, key: str) -> bool:
    """Whether the stage folder of a run's training is whole, whatever its record says."""
    folder = workspace.stage(_TRAIN) / key.rpartition("-")[0]
    return _run_of(folder).get("key") == key and (folder / MANIFEST).is_file()


def open_runs(workspace: Workspace) -> list[RunRecord]:
    """The runs that are not known to have ended."""
    return [record for record in every(workspace) if record.status == "RUNNING"]


def is_worked_on(workspace: Workspace, record: RunRecord) -> bool:
    """Whether a process is at work on a run now; True where it is not known which lock that one would hold."""
    return not record.lock or is_held(workspace.lock(record.lock))


def pending(workspace: Workspace, address: str, *, is_gone: bool = False) -> list[RunRecord]:
    """The runs of which the store at an address has still to be told something: all, if it is gone."""
    return [
        run
        for run in every(workspace)
        if run.is_news_to(None if is_gone else read_store(workspace, run.key, address))
    ]


def journal_path(workspace: Workspace, journal: JournalRecord) -> Path | None:
    """Where a journal lies now: its stage folder loses `.partial` when it is whole. None if it is gone."""
    folder = workspace.root / journal.folder
    for candidate in (folder, folder.with_name(folder.name.removesuffix(".partial"))):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    return None


def tail_digest(path: Path, offset: int) -> str:
    """A digest of what stands before an offset, to see that a journal is still the one that was delivered."""
    start = max(0, offset - _TAIL_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(offset - start)).hexdigest()[:16]


def _lock_of(journals: Collection[str]) -> str:
    """The lock of a run as its journals' names tell it: `train/<hash>`, `search/<hash>/<row>`."""
    names = [name.split("/") for name in journals]
    return next(("-".join(parts[:2]) for parts in names if parts[0] in (_TRAIN, _SEARCH) and len(parts) > 1), "")


def _retold(workspace: Workspace, key: str) -> RunRecord | None:
    """The record of a training as its stage folders tell it; None where they do not."""
    fingerprint = key.rpartition("-")[0]
    whole = workspace.stage(_TRAIN) / fingerprint
    partial = whole.with_name(f"{fingerprint}.partial")
    if is_finished(workspace, key):
        folder, upto = whole, _size(whole / FILE_NAME)
    elif key == _run_of(partial).get("key") and (durable := _durable(partial)) is not None:
        folder, upto = partial, durable
    else:
        return None
    record = RunRecord(key, _run_of(folder).get("name", key), "FINISHED" if folder == whole else "RUNNING")
    told = [(f"{_TRAIN}/{fingerprint}", folder, upto)]
    if folder == whole:
        told += [
            (f"{_EVALUATE}/{path.name}", path, _size(path / FILE_NAME)) for path in _reports(workspace, fingerprint)
        ]
    record.lock = _lock_of([journal_id for journal_id, _, _ in told])
    for journal_id, place, offset in told:
        record.journals[journal_id] = JournalRecord(place.relative_to(workspace.root).as_posix(), offset)
    return record


def _run_of(folder: Path) -> dict[str, str]:
    """The key and the name of the run that a training's folder belongs to; empty where it does not say."""
    try:
        content = json.loads((folder / RUN_FILE).read_bytes())
        return {"key": str(content["key"]), "name": str(content["name"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _durable(partial: Path) -> int | None:
    """How much of an unfinished training's journal its newest checkpoint covers; None without a checkpoint."""
    for described in sorted(partial.glob("step-*.json"), reverse=True):
        try:
            return int(json.loads(described.read_bytes())["journal_offset"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return None


def _reports(workspace: Workspace, training: str) -> Iterator[Path]:
    """The whole evaluations of a training that have a journal."""
    for path in sorted(workspace.stage(_EVALUATE).glob("*")):
        try:
            manifest = read_manifest(path)
        except WorkspaceError:  # said when that folder itself is asked for
            continue
        if manifest is not None and manifest.inputs.get(_TRAIN) == training and (path / FILE_NAME).is_file():
            yield path


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _stores(workspace: Workspace) -> Iterator[tuple[str, StoreRecord]]:
    """The key of each run, and what a store was told of it, for every store."""
    for path in sorted((workspace.hidden / "runs").glob("*@*.json")):
        if (store := _read_store(path)) is not None:
            yield path.stem.rpartition("@")[0], store


def _read_store(path: Path) -> StoreRecord | None:
    try:
        content = json.loads(path.read_bytes())
        delivered = {name: Delivered(**one) for name, one in content.pop("delivered").items()}
        return StoreRecord(**content, delivered=delivered)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, record: RunRecord | StoreRecord) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))
