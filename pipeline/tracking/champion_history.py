"""The history of a champion: who made which version champion, when and why, and what it says of the alias. No MLflow.

A change is written down as intended before the alias is moved, and as done afterwards. So whatever moment a process
dies at, the alias and the history together say whether the change was made (`settled`). An alias that nobody here
moved was moved by hand, and is entered as such when it is noticed.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

TAG = "seqpipe.champion."
"""What the tags of a registered model begin with that hold its history, one change each."""

Kind = Literal["registered", "promoted", "rolled back", "by hand"]


@dataclass(frozen=True)
class Change:
    """A version became champion."""

    key: str
    """The rest of its tag's name; in the order of time."""
    kind: Kind
    version: str | None
    """The champion from then on; None: there was none."""
    at: str
    """When, ISO 8601 in UTC; of a change by hand, when it was noticed."""
    who: str
    why: str
    run: str = ""
    """The run that the version is of."""
    comparison: str = ""
    """What the champion before and this version were compared by, and with which result."""
    is_done: bool = False
    """Whether the alias is known to have been moved."""

    def to_text(self) -> str:
        """What its tag holds."""
        content = asdict(self)
        del content["key"]
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_text(cls, key: str, text: str) -> Self | None:
        """What `to_text` made; None for anything else."""
        try:
            content: Any = json.loads(text)
            return cls(key=key, **content)
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Settled:
    """A history that agrees with the alias, and what of it is not in the registry yet."""

    changes: tuple[Change, ...]
    """In the order of time."""
    to_write: tuple[Change, ...] = ()
    to_remove: tuple[Change, ...] = ()


def read(tags: Mapping[str, str]) -> list[Change]:
    """The changes in the tags of a registered model, in the order of time."""
    keys = sorted(key.removeprefix(TAG) for key in tags if key.startswith(TAG))
    changes = (Change.from_text(key, tags[TAG + key]) for key in keys)
    return [change for change in changes if change is not None]


def settled(changes: Sequence[Change], champion: str | None, now: Change) -> Settled:
    """The history as it is once it agrees with who is champion.

    What was intended was done if its version is champion or a later change was done on top of it, and otherwise never
    was. `now` is entered, by hand, if the champion is another one than the history says.
    """
    last = max((number for number, change in enumerate(changes) if change.is_done), default=-1)
    kept: list[Change] = []
    to_write: list[Change] = []
    to_remove: list[Change] = []
    for number, change in enumerate(changes):
        if change.is_done:
            kept.append(change)
        elif number > last and change.version == champion and not _says(kept, champion):
            done = replace(change, is_done=True)
            kept.append(done)
            to_write.append(done)
        else:
            to_remove.append(change)
    if not _says(kept, champion):
        noticed = replace(now, kind="by hand", version=champion, is_done=True)
        kept.append(noticed)
        to_write.append(noticed)
    return Settled(tuple(kept), tuple(to_write), tuple(to_remove))


def champion_before(changes: Sequence[Change], there: Collection[str]) -> str | None:
    """The version that a rollback goes back to, of those that are still there; None if there is none.

    Rolling back twice goes two champions back, not to and fro.
    """
    stack: list[str] = []
    for change in changes:
        if change.version is None:
            continue
        if change.kind == "rolled back" and change.version in stack:
            del stack[len(stack) - stack[::-1].index(change.version) :]
        elif stack[-1:] != [change.version]:
            stack.append(change.version)
    present = changes[-1].version if changes else None
    if present is not None:
        stack = stack[:-1]
    return next((version for version in reversed(stack) if version in there and version != present), None)


def _says(changes: Sequence[Change], champion: str | None) -> bool:
    """Whether this history says that this version is champion; without any change, that there is none."""
    return (changes[-1].version if changes else None) == champion
