"""Who is champion, in the registry: promotes, rolls back, and keeps the history in tags of the registered model."""

import getpass
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, TrackingError
from pipeline.tracking.champion_history import TAG, Change, Kind, Settled, champion_before, read, settled
from pipeline.tracking.champion_store import ChampionStore
from pipeline.tracking.registration_check import missing_files
from pipeline.workspace.locks import exclusive

if TYPE_CHECKING:
    from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class Reason:
    """Why a version becomes champion."""

    kind: Kind
    why: str
    run: str = ""
    comparison: str = ""


def history(store: ChampionStore, name: str) -> tuple[Change, ...]:
    """The changes of the champion of a registered model, in the order of time; nothing is written."""
    return _settled(store, name).changes


def make_champion(store: ChampionStore, name: str, version: str, reason: Reason) -> tuple[Change, ...]:
    """Make a version champion, and enter it in the history; nothing if it is champion already.

    The caller holds the registry's lock (`registry_lock`). Killed at any moment, the history and the alias agree.
    """
    before = _settle(store, name)
    if before and before[-1].version == version:
        return before
    change = replace(
        _now(), kind=reason.kind, version=version, why=reason.why, run=reason.run, comparison=reason.comparison
    )
    _write(store, name, change)
    store.set_champion(name, version)
    done = replace(change, is_done=True)
    _write(store, name, done)
    return (*before, done)


def roll_back(store: ChampionStore, name: str, why: str) -> tuple[Change, ...]:
    """Make the champion before the present one champion again.

    The caller holds the registry's lock.

    Raises:
        ConfigError: there is none before it that is still there.
    """
    before = _settle(store, name)
    there = store.versions(name)
    version = champion_before(before, there)
    if version is None:
        raise ConfigError(f"{name} has no champion before the present one to go back to; `seqpipe models history`")
    if (folder := missing_files(there[version].source)) is not None:
        raise TrackingError(
            f"version {version} was champion before, but its files are gone from {folder}; "
            "make another one champion with `seqpipe models promote`"
        )
    return make_champion(store, name, version, Reason("rolled back", why, run=there[version].run))


@contextmanager
def registry_lock(workspace: "Workspace") -> Iterator[None]:
    """Hold what lets one process at a time change versions and aliases from a workspace."""
    with exclusive(workspace.lock("register"), lambda _: None, what="the registry"):
        yield


def _settle(store: ChampionStore, name: str) -> tuple[Change, ...]:
    """The history, after what is missing in it was written."""
    found = _settled(store, name)
    for change in found.to_remove:
        store.remove_tag(name, TAG + change.key)
    for change in found.to_write:
        _write(store, name, change)
    return found.changes


def _settled(store: ChampionStore, name: str) -> Settled:
    model = store.model(name)
    now = replace(_now(), why="set outside of seqpipe, or before it kept a history")
    return settled(read(model.tags), model.champion, now)


def _write(store: ChampionStore, name: str, change: Change) -> None:
    store.set_tag(name, TAG + change.key, change.to_text())


def _now() -> Change:
    nanoseconds = time.time_ns()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
    key = f"{nanoseconds:020d}-{uuid.uuid4().hex[:6]}"
    return Change(key=key, kind="by hand", version=None, at=f"{at}Z", who=_who(), why="")


def _who() -> str:
    """USER@HOST."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = "?"
    return f"{user}@{socket.gethostname()}"
