"""How a command starts: a new search, one that replaces another, one that continues, or nothing to do."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config.difference import first_few
from pipeline.errors import ConfigError
from pipeline.search.request import Request
from pipeline.search.store import SearchFolder, SearchStatus, status_in
from pipeline.workspace.locks import is_held


@dataclass(frozen=True)
class Start:
    """What a command does with the search that it finds, and what it says about that."""

    kind: Literal["new", "replace", "continue", "extend", "done"]
    why: str
    notes: tuple[str, ...] = ()


def decide(request: Request, status: SearchStatus | None, *, is_there: bool) -> Start:
    """How to start, given the status of the search; `is_there`: it has a folder, damaged or not."""
    if request.fresh and is_there:
        return Start("replace", f"--fresh, in place of {status.in_words() if status else 'a damaged one'}")
    if status is None:
        return Start("new", "not started yet")
    notes = []
    if request.trials and request.trials < status.target:
        notes.append(f"it aims for {status.target} trials, which --trials {request.trials} does not lower")
    if request.is_met(status):
        return Start("done", "up to date", tuple(notes))
    if status.is_done:
        more = request.target(status) - status.target
        return Start("extend", f"{more} more: {status.in_words()}", tuple(notes))
    if request.extend:
        notes.insert(0, "--extend is for a search that has all of its trials; this one goes on to them first")
    return Start("continue", f"going on: {status.in_words()}", tuple(notes))


def will_run_trials(request: Request, search: SearchFolder) -> bool:
    """Whether this command will run trials, as far as can be known before it holds the lock.

    False while another command runs the search: that one may do all of it.
    """
    if is_held(search.lock):
        return False
    return decide(request, search.status(), is_there=search.path.exists()).kind != "done"


def check_extension(request: Request, search: SearchFolder) -> None:
    """Refuse `--extend` where there is nothing to extend.

    Raises:
        ConfigError: with `--fresh`, or without a search of these settings.
    """
    if not request.extend:
        return
    if request.fresh:
        raise ConfigError("--extend adds to a search and --fresh discards it; give one of them")
    if search.status() is None:
        other = closest_other(search)
        raise ConfigError(f"there is no search with these settings to extend{f'; {other}' if other else ''}")


def closest_other(search: SearchFolder) -> str | None:
    """The search of the same model with the most similar settings, and which ones differ, in words."""
    found = search.closest_other()
    if found is None:
        return None
    folder, differing = found
    status = status_in(folder)
    known = f" ({status.in_words()})" if status else ""
    return f"the one before, {folder.name}{known}, is kept in {folder}; other settings: {first_few(differing)}"
