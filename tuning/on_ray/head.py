"""The head: what `cluster up` runs until it is asked to end."""

from collections.abc import Callable

from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import NodeEvent
from tuning.on_ray.node_plan import NodePlan


def run(
    plan: NodePlan,
    address: str,
    code: JoinCode,
    on_event: Callable[[NodeEvent], None],
    should_stop: Callable[[], bool],
) -> str:
    """Start a head that binds `address`, and keep it until `should_stop`, an order to end, or a loss.

    When `Joined` has been told, the head answers. At the end all nodes are told to end, and nothing is left here.

    Returns:
        Why it ended, in words.

    Raises:
        ClusterError: it could not be started, or its processes were lost.
    """
    raise NotImplementedError
