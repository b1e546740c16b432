"""A member: what `cluster join` runs. It keeps a node of this laptop in the cluster until it is asked to leave."""

from collections.abc import Callable

from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import NodeEvent
from tuning.on_ray.node_plan import NodePlan


def run(
    plan: NodePlan,
    head_address: str,
    code: JoinCode,
    on_event: Callable[[NodeEvent], None],
    should_stop: Callable[[], bool],
) -> str:
    """Join the head at HOST:PORT, and join again whenever the node is lost; until `should_stop` or an order.

    The caller has compared the two machines. Which address this laptop has is looked up with every attempt.

    Returns:
        Why it left, in words.

    Raises:
        ClusterError: the head refuses the code, or Ray cannot be started here at all.
    """
    raise NotImplementedError
