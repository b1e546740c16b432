"""Sending a laptop out of a cluster, and ending the whole of it."""

import time

from pipeline.cluster.workspace_cluster import NONE_UP, ClusterFolder, left_over, running
from pipeline.errors import MachineUnfitError
from pipeline.workspace.paths import Workspace

LEAVE_S = 60.0
"""A node that answers is gone sooner: its trials have 5 s to save."""
DOWN_S = 60.0
_ASK_S = 0.2


def leave(workspace: Workspace, node: str) -> None:
    """Tell a node to leave, and wait until it has.

    Raises:
        MachineUnfitError: there is no cluster, no such node, it is the head's, or it has not left in time.
        ClusterError: the head does not answer.
    """
    from tuning.cluster.orders import Order
    from tuning.on_ray import board

    access = running(workspace)
    if access is None:
        raise MachineUnfitError(NONE_UP)
    with board.Board(access.address, access.token) as opened:
        nodes = {record.name: record for record in opened.nodes()}
        if node not in nodes:
            raise MachineUnfitError(f"no node {node!r} is in the cluster; there are: {', '.join(nodes)}")
        if nodes[node].is_head:
            raise MachineUnfitError(
                f"{node} has the head, without which there is no cluster; `seqpipe cluster down` ends it"
            )
        opened.give_order(node, Order.LEAVE)
        until = time.monotonic() + LEAVE_S
        while any(record.name == node for record in opened.nodes()):
            if time.monotonic() > until:
                raise MachineUnfitError(
                    f"{node} has not left within {LEAVE_S:.0f} s: it is out of reach, and leaves when it is back"
                )
            time.sleep(_ASK_S)


def down(workspace: Workspace) -> str:
    """End the cluster of a workspace, and wait until it has ended; what came of it, in words.

    Raises:
        MachineUnfitError: there is none, or it does not end.
        WorkspaceError: the workspace cannot be written.
    """
    folder = ClusterFolder(workspace.cluster)
    if not folder.is_held():
        if left_over(workspace) is None:
            raise MachineUnfitError(NONE_UP)
        folder.forget()
        return "the cluster had ended already; its join code is good for nothing from now on"
    access = running(workspace)
    folder.ask_to_end()
    until = time.monotonic() + DOWN_S
    while folder.is_held():
        if time.monotonic() > until:
            process = f"process {access.head.pid}" if access else "its process"
            raise MachineUnfitError(
                f"`seqpipe cluster up` does not end ({process}): it hangs, or was stopped; kill it"
            )
        time.sleep(_ASK_S)
    return "the cluster has ended"
