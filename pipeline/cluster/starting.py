"""Starting a cluster from a workspace, and keeping its head until it is asked to end."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.cluster import node_here, this_laptop
from pipeline.cluster.bound_address import BoundAddress
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere, left_over
from pipeline.errors import InterruptedRunError, MachineUnfitError
from pipeline.stop import StopToken
from pipeline.workspace.paths import Workspace
from tuning.cluster import addresses, ports
from tuning.cluster.join_code import JoinCode
from tuning.cluster.ports import Ports
from tuning.errors import ClusterError

if TYPE_CHECKING:
    from tuning.cluster.node_events import NodeEvent
    from tuning.on_ray.node_plan import NodePlan


@dataclass(frozen=True)
class Asked:
    """What a user said about the cluster to start."""

    bind: str | None = None
    port: int | None = None
    reserve_mb: int | None = None


def up(
    workspace: Workspace,
    asked: Asked,
    on_up: Callable[[ClusterAccess], None],
    on_event: "Callable[[NodeEvent], None]",
    stop_token: StopToken,
) -> str:
    """Start the cluster of a workspace, and keep it until a signal or `cluster down`.

    Ctrl-C and `down` end it for good. Other signals come from a closed terminal or a laptop that shuts down: the next
    `up` goes on with the same join code, and the other laptops wait for it.

    `on_up` is called when it is up, and again if it has to start anew at another address of this laptop.

    Returns:
        Why it ended.

    Raises:
        MachineUnfitError: this laptop, or the workspace, is in a cluster already.
        ClusterError: no address to bind, ports taken, or Ray does not run.
        CapDoesNotFitError: the reserve is more than the laptop has.
        WorkspaceError: the workspace cannot be written.
    """
    workspace.create()
    folder = ClusterFolder(workspace.cluster)

    def should_stop() -> bool:
        return stop_token.reason() is not None or folder.is_asked_to_end()

    def comes_back() -> bool:
        reason = stop_token.reason()
        return isinstance(reason, InterruptedRunError) and reason.signal_number != signal.SIGINT

    with ExitStack() as stack:
        stack.enter_context(folder.held())
        stack.enter_context(node_here.only_one("head", str(workspace.root)))
        before = left_over(workspace)
        host, chosen = _place(asked, before)
        with this_laptop.Facts() as facts:
            plan = this_laptop.plan(socket.gethostname(), chosen, asked.reserve_mb, facts.result())
        try:
            with stop_token.deferring():
                why = _kept(host, plan, before, folder, on_up, on_event, should_stop, comes_back)
        except InterruptedRunError:  # a second signal
            if not comes_back():
                folder.forget()
            raise
        if not comes_back():
            folder.forget()
        return why


def _kept(
    host: str,
    plan: "NodePlan",
    before: ClusterAccess | None,
    folder: ClusterFolder,
    on_up: Callable[[ClusterAccess], None],
    on_event: "Callable[[NodeEvent], None]",
    should_stop: Callable[[], bool],
    comes_back: Callable[[], bool],
) -> str:
    """Keep a head until `should_stop`; why it ended. If this laptop gets another address, it is started anew there.

    A head cannot move, and without its address it does not reach itself.
    """
    from tuning.cluster.node_events import Joined, Lost
    from tuning.on_ray import head as head_on_ray

    while True:
        bound, access = BoundAddress(host), _access(host, plan, before)

        def heard(event: "NodeEvent", access: ClusterAccess = access) -> None:
            if isinstance(event, Joined) and not event.again:
                folder.write(access)
                on_up(access)
            else:
                on_event(event)

        def should_end(bound: BoundAddress = bound) -> bool:
            return should_stop() or bound.has_moved()

        try:
            why = head_on_ray.run(plan, host, access.code, heard, should_end, comes_back)
        except ClusterError:
            if bound.is_here():
                raise
            why = f"this laptop lost its address {host}"
        if should_stop() or bound.is_here():
            return why
        on_event(Lost(f"this laptop's address is no longer {host}"))
        found = bound.wait(should_stop)
        if found is None:
            return why
        host, before = found, access


def _place(asked: Asked, before: ClusterAccess | None) -> tuple[str, Ports]:
    """The address to bind and the ports to use: those that were asked for, those of before, or the only choice."""
    here = addresses.of_this_machine()
    as_before = before.head.host if before and any(one.address == before.head.host for one in here) else None
    try:
        host = addresses.to_bind(asked.bind or as_before, here)
    except ClusterError as error:
        raise MachineUnfitError(f"{error} (--bind ADDRESS)") from error
    chosen = Ports(asked.port or (before.head.port if before else ports.DEFAULT_BASE))
    this_laptop.require_free(chosen, is_head=True)
    return host, chosen


def _access(host: str, plan: "NodePlan", before: ClusterAccess | None) -> ClusterAccess:
    """Where the head will be, and its join code: that of before, if these are the versions that it was made for."""
    goes_on = before if before is not None and before.code.digest == plan.versions.digest else None
    head = HeadHere(
        host=host,
        port=plan.ports.base,
        name=plan.name,
        pid=os.getpid(),
        cores=plan.cores,
        gives_mb=plan.gives_mb,
        reserve_mb=plan.reserve_mb,
        goes_on_from=goes_on.head.typed if goes_on else None,
    )
    return ClusterAccess(head, goes_on.code if goes_on else JoinCode.new(plan.versions.digest))
