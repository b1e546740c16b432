"""What `seqpipe cluster up` and `status` show: what to type where, and what each laptop runs."""

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.cluster_events import NodeView, at_this_time
from pipeline.cli.console import complain, emit, emit_json, program, table
from pipeline.cluster.workspace_cluster import NONE_UP
from pipeline.percent import percent
from tuning.cluster.node_events import NodeEvent
from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.cluster.ports import Ports

if TYPE_CHECKING:
    from pipeline.cluster.node_here import NodeHere
    from pipeline.cluster.workspace_cluster import ClusterAccess, HeadHere
    from pipeline.workspace.paths import Workspace

QUIET_S = 10.0
"""How long a node may have said nothing before that is shown."""


class UpView(NodeView):
    """Shows a cluster that is up: what to type where, then a line for each thing that happens."""

    def __init__(self, workspace: "Workspace", *, is_detached: bool, shows_code: bool) -> None:
        super().__init__()
        self._workspace = workspace
        self._is_detached = is_detached
        self._shows_code = shows_code

    def up(self, access: "ClusterAccess") -> None:
        """Show what to type where."""
        self.name, self.has_joined = access.head.name, True
        if not self._shows_code:
            complain(at_this_time(f"the cluster is up at {access.head.typed}"))
            return
        head = access.head
        emit(f"The cluster of {self._workspace.root} is up. Type on the other laptop:")
        emit()
        emit(f"    {program_elsewhere()} cluster join {head.typed}")
        emit()
        for name, words in self._lines(access):
            emit(f"{name:<12} {words}")
        sys.stdout.flush()

    def heard(self, event: NodeEvent) -> None:
        super().heard(event)
        if words := self.line(event):
            complain(at_this_time(words))

    def _lines(self, access: "ClusterAccess") -> list[tuple[str, str]]:
        head, here = access.head, shlex.quote(program())
        down = f"{here} cluster down"
        return [
            ("join code", f"{access.code}{_goes_on(head)}"),
            ("this laptop", f"{head.name}, gives {head.cores} cores and {head.gives_mb} MB to trials"),
            ("", f"{head.reserve_mb} MB stay free for everything else"),
            ("", self.sleep),
            (
                "firewall",
                f"let TCP {Ports(head.port).in_words()} in on both, each from the other; nothing is encrypted",
            ),
            ("to search", f"{here} tune --model medium"),
            ("to end it", down if self._is_detached else f"Ctrl-C, or {down}"),
        ]


def _goes_on(head: "HeadHere") -> str:
    if head.goes_on_from is None:
        return ""
    if head.goes_on_from == head.typed:
        return " (as before: laptops that had joined come back by themselves)"
    return f" (as before; laptops that had joined {head.goes_on_from} have to join this address)"


def program_elsewhere() -> str:
    """What this program is called on another laptop: as here, if it is called from a clone's own folder."""
    here = program()
    return here if not here.startswith(("/", "..")) else "seqpipe"


def none_in_words(left_over: "ClusterAccess | None", here: "NodeHere | None") -> str:
    """What there is where no cluster is up from this workspace, in a line."""
    if left_over is not None:
        return (
            "no cluster is up from this workspace: the last one ended without `seqpipe cluster down`; "
            "`seqpipe cluster up` goes on with its join code"
        )
    return f"{NONE_UP}; {here.in_words()}" if here is not None else NONE_UP


def show_status(
    head: "HeadHere", nodes: Sequence[NodeRecord], searches: Sequence[SearchSummary], as_json: bool
) -> None:
    """Show the laptops of a cluster, what each of them runs, and how far its searches are; never the join code."""
    if as_json:
        emit_json(_status_json(head, nodes, searches))
        return
    table(
        ["node", "address", "state", "cores", "memory held", "free", "precision", "kernel", "trials"],
        [_node_cells(record, nodes) for record in nodes],
        title=f"the cluster at {head.typed}, ports {Ports(head.port).in_words()}",
    )
    running = [(record.name, trial) for record in nodes for trial in record.trials]
    if running:
        table(
            ["node", "search", "trial", "epoch", "validation", "memory"],
            [[name, *trial_cells(trial)] for name, trial in running],
        )
    for search in searches:
        emit(search_in_words(search))
    if not searches:
        emit("no search runs now")


def trial_cells(trial: TrialOnNode) -> list[str]:
    """A trial in a table: its search, number, epoch, value and memory."""
    return [
        trial.search,
        str(trial.row),
        f"{trial.epoch}/{trial.epochs}",
        percent(trial.value),
        f"{trial.held_mb:.0f} of {trial.cap_mb:.0f} MB",
    ]


def search_in_words(search: SearchSummary) -> str:
    """How far a search is, in a line."""
    rate = f", {search.trials_per_hour:.0f} trials an hour" if search.trials_per_hour is not None else ""
    return f"search {search.name}: {search.done} of {search.target} trials, best {percent(search.best)}{rate}"


def held_mb(record: NodeRecord) -> float:
    """What the trials of a node hold."""
    return sum(trial.held_mb for trial in record.trials)


def _node_cells(record: NodeRecord, nodes: Sequence[NodeRecord]) -> list[str]:
    return [
        f"{record.name}{' (head)' if record.is_head else ''}",
        record.address,
        _state(record, nodes),
        f"{record.cores:g}",
        f"{held_mb(record):.0f} of {record.gives_mb} MB",
        f"{record.free_mb} MB",
        record.facts.get("precision", "-"),
        record.facts.get("kernel", "-"),
        str(len(record.trials)),
    ]


def _state(record: NodeRecord, nodes: Sequence[NodeRecord]) -> str:
    """A node's state, with why it takes no work, and for how long it has said nothing."""
    quiet_s = max((other.clock for other in nodes), default=0.0) - record.clock
    said = f"{record.state}: {record.why}" if record.why else record.state
    return f"{said}, not heard of for {quiet_s:.0f} s" if quiet_s > QUIET_S else said


def _status_json(head: "HeadHere", nodes: Sequence[NodeRecord], searches: Sequence[SearchSummary]) -> dict[str, Any]:
    return {
        "up": True,
        "head": head.name,
        "address": head.address,
        "ports": Ports(head.port).in_words(),
        "nodes": [record.to_json() for record in nodes],
        "searches": [search.to_json() for search in searches],
    }
