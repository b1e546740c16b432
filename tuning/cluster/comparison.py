"""Whether a laptop fits a cluster: what the two are compared in, what may differ, and what to do about the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.cluster.node_record import NodeRecord
from tuning.cluster.versions import Versions

CLOCKS_MAY_DIFFER_S = 2.0
CLOCKS_TOO_FAR_S = 300.0
"""The times of a node whose clock is further away mean nothing; it gets no work."""
LEAST_DISK_MB = 500
"""For the prepared data and a search's checkpoints."""
LEAST_MEMORY_MB = 400
"""A node that gives less runs no trial."""
UNCALLED_S = 30.0
"""After how long a head drops a node that it cannot call."""

Verdict = Literal["same", "said", "refused"]


@dataclass(frozen=True)
class Line:
    """One line of the comparison; a `refused` one keeps the laptop out, a `said` one does not."""

    what: str
    here: str
    there: str
    verdict: Verdict
    advice: str = ""


@dataclass(frozen=True)
class Reach:
    """What two laptops reach of each other."""

    unreachable_there: tuple[int, ...] = ()
    """The head's ports that this laptop cannot connect to."""
    unreachable_here: tuple[int, ...] = ()
    """This laptop's ports that the head cannot connect to."""


def compare(
    here: NodeRecord, head: NodeRecord, *, clock_off_s: float, disk_free_mb: float, reach: Reach | None
) -> tuple[Line, ...]:
    """Compare this laptop with the head, whose clock is `clock_off_s` ahead. `reach` is None if it was not tried."""
    return (
        *_versions(here.versions, head.versions),
        _clocks(clock_off_s),
        *(_ports(reach) if reach is not None else ()),
        _enough("memory for trials", here.gives_mb, head.gives_mb, LEAST_MEMORY_MB, "close other programs here"),
        _enough("free disk", disk_free_mb, None, LEAST_DISK_MB, "free some space here"),
        *_facts(here.facts, head.facts),
    )


def refused(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines that keep the laptop out."""
    return tuple(line for line in lines if line.verdict == "refused")


def _versions(here: Versions, there: Versions) -> list[Line]:
    return [
        _python(here, there),
        _must_match("Ray", here.ray, there.ray, f"install ray=={there.ray} here"),
        _must_match("code", here.code, there.code, "bring both laptops to the same commit, without changes"),
        _may_differ("torch", here.torch, there.torch, "trials of the two may differ in the last bits"),
    ]


def _python(here: Versions, there: Versions) -> Line:
    if here.python_minor != there.python_minor:
        return _must_match("Python", here.python, there.python, f"install Python {there.python_minor} here")
    return _may_differ("Python", here.python, there.python, "the patch release may differ")


def _may_differ(what: str, here: str, there: str, advice: str = "") -> Line:
    return Line(what, here or "-", there or "-", "same" if here == there else "said", "" if here == there else advice)


def _must_match(what: str, here: str, there: str, advice: str) -> Line:
    same = here == there
    return Line(what, here or "-", there or "-", "same" if same else "refused", "" if same else advice)


def _clocks(off_s: float) -> Line:
    if abs(off_s) <= CLOCKS_MAY_DIFFER_S:
        return Line("clock", "-", "-", "same")
    verdict: Verdict = "refused" if abs(off_s) > CLOCKS_TOO_FAR_S else "said"
    way = "behind" if off_s > 0 else "ahead"
    return Line("clock", f"{abs(off_s):.0f} s {way}", "-", verdict, "set both clocks by the network's time")


def _ports(reach: Reach) -> list[Line]:
    there, here = reach.unreachable_there, reach.unreachable_here
    let_in = "let the other laptop's firewall accept them from this one"
    let_back = (
        f"let this laptop's firewall accept them from the other, which drops a laptop that it cannot call for "
        f"{UNCALLED_S:.0f} s"
    )
    return [
        Line("ports there", "-", _open(there), "refused" if there else "same", let_in if there else ""),
        Line("ports here", _open(here), "-", "refused" if here else "same", let_back if here else ""),
    ]


def _open(unreachable: Sequence[int]) -> str:
    return f"{ranges(unreachable)} blocked" if unreachable else "open"


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in words: 6481-6483, 6490."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _enough(what: str, here: float, there: float | None, least: float, advice: str) -> Line:
    shown = "-" if there is None else f"{there:.0f} MB"
    if here >= least:
        return Line(what, f"{here:.0f} MB", shown, "same")
    return Line(what, f"{here:.0f} MB", shown, "refused", f"at least {least:.0f} MB; {advice}")


def _facts(here: Mapping[str, str], there: Mapping[str, str]) -> list[Line]:
    return [_may_differ(name, here.get(name, ""), there.get(name, "")) for name in dict.fromkeys((*there, *here))]
