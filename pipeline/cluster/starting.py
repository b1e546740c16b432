"""Starting a cluster from a workspace, and keeping its head until it is asked to end."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.cluster import node_here, this_laptop
from pipeline.cluster.workspace_cluster import ClusterFolder, HeadPlace, left_over, place_of
from pipeline.errors import InterruptedRunError
from pipeline.workspace.paths import Workspace
from tuning.cluster import addresses, ports
from tuning.cluster.join_code import JoinCode
from tuning.cluster.ports import Ports

if TYPE_CHECKING:
    from tuning.cluster.node_events import NodeEvent
    from tuning.on_ray.node_plan import NodePlan


@dataclass(frozen=True)
class Asked:
    """What a user said about the cluster to start."""

    bind: str | None = None
    port: int | None = None
    reserve_mb: int | None = None


@dataclass(frozen=True)
class Up:
    """A cluster that is up: what has to be told about it."""

    head: HeadPlace
    code: JoinCode
    plan: "NodePlan"
    goes_on_from: str | None
    """The address of the cluster that ended without `down` and whose join code this one has; None for a new code."""


def up(
    workspace: Workspace,
    asked: Asked,
    on_up: Callable[[Up], None],
    on_event: "Callable[[NodeEvent], None]",
    should_stop: Callable[[], bool],
) -> str:
    """Start the cluster of a workspace, and keep it until `should_stop` or `cluster down`; `on_up` is called once.

    Returns:
        Why it ended.

    Raises:
        MachineUnfitError: this laptop, or the workspace, is in a cluster already.
        ClusterError: no address to bind, ports taken, or Ray does not run.
        CapDoesNotFitError: the reserve is more than the laptop has.
        WorkspaceError: the workspace cannot be written.
    """
    from tuning.cluster.node_events import Joined
    from tuning.on_ray import head as head_on_ray

    workspace.create()
    folder = ClusterFolder(workspace.cluster)
    with ExitStack() as stack:
        stack.enter_context(folder.held())
        stack.enter_context(node_here.only_one("head", str(workspace.root)))
        before = left_over(workspace)
        host = addresses.to_bind(asked.bind, addresses.of_this_machine())
        chosen = Ports(asked.port or (before.head.port if before else ports.DEFAULT_BASE))
        ports.require_free(chosen, is_head=True)
        with this_laptop.Facts() as facts:
            plan = this_laptop.plan(socket.gethostname(), chosen, asked.reserve_mb, facts.result())
        place = place_of(host, chosen.base, plan.name)
        goes_on = before if before is not None and before.code.digest == plan.versions.digest else None
        code = goes_on.code if goes_on else JoinCode.new(plan.versions.digest)

        def heard(event: "NodeEvent") -> None:
            if isinstance(event, Joined) and not event.again:
                folder.write(place, code)
                on_up(Up(place, code, plan, goes_on.head.typed if goes_on else None))
            else:
                on_event(event)

        try:
            why = head_on_ray.run(plan, place.address, code, heard, lambda: should_stop() or folder.is_asked_to_end())
        except InterruptedRunError:  # a second signal
            folder.forget()
            raise
        folder.forget()
        return why
