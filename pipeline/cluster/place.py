"""Where a search runs: on the cluster of its workspace, if one is up, else on this laptop."""

from dataclasses import dataclass, field

from pipeline.cluster.workspace_cluster import ClusterFolder, left_over, running
from pipeline.errors import MachineUnfitError
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class Place:
    """The address of a cluster, with the token of one that we run; None for this laptop alone."""

    address: str | None = None
    token: str | None = field(default=None, repr=False)
    note: str = ""
    """What the user should know about that."""


def place_of_search(workspace: Workspace) -> Place:
    """Where a search in this workspace runs now, if the user does not say.

    Raises:
        MachineUnfitError: its cluster is being started.
        WorkspaceError: the cluster's files cannot be read.
    """
    access = running(workspace)
    if access is not None:
        return Place(access.address, access.token)
    if ClusterFolder(workspace.cluster).is_held():
        raise MachineUnfitError(
            "the cluster of this workspace is being started; repeat the command when `seqpipe cluster status` shows "
            "it, or leave it alone with --local"
        )
    if left_over(workspace) is not None:
        return Place(
            note="the cluster of this workspace ended without `seqpipe cluster down`, so this search runs on this "
            "laptop alone; `seqpipe cluster up` brings it back"
        )
    return Place()
