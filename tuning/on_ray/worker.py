"""The trial worker: waits for room, runs one row, and goes on with the next one that Ray has for it.

Contract: a trial *returns* how it ended. Only a lost process raises.
"""

import os
from typing import Any

from tuning.cluster.node_folder import NodeFolder
from tuning.on_ray import messages
from tuning.on_ray.attempt import Attempt
from tuning.on_ray.room_wait import RoomWait
from tuning.on_ray.row_run import RowRun
from tuning.on_ray.trial_task import Task, TrialSettings
from tuning.trial import PickledObjective
from tuning.trial_room import TrialRoom

_LEAVE_S = "120"
"""How long Ray waits for a stopped trial to free its worker, before it starts the next one there."""


def run_trial(task: Task, objective: PickledObjective, settings: TrialSettings, store: Any) -> None:
    """Run a row until it is finished or has to leave, and report everything to the driver.

    Raises:
        LostTrialError: the row's process was lost.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _LEAVE_S
    attempt = Attempt(store, task.row, task.attempt, settings.drivers_node)
    node = NodeFolder.of_environment()
    with TrialRoom(settings.cap_mb, NodeFolder.reserve_mb(settings.reserve_mb)) as room:
        if RoomWait(room, attempt, node, settings.in_cluster).is_over():
            attempt.report(messages.started(attempt.node))
            RowRun(task, objective, settings, attempt, room, node).run()
        else:
            attempt.report(messages.PAUSED)
