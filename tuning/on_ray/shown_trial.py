"""What a trial worker says in its node's folder of the trial that it runs, for `cluster status`."""

import contextlib
import time
from dataclasses import replace
from typing import Any, Self

from tuning.cluster.node_folder import NodeFolder
from tuning.cluster.node_record import TrialOnNode

HOLDS_S = 1.0
"""How often what it holds is written anew."""


class ShownTrial:
    """Shown while the context lasts; outside of a cluster's node nothing is."""

    def __init__(self, node: NodeFolder | None, search: str, row: int, epochs: int, cap_mb: float) -> None:
        self._node = node
        self._trial = TrialOnNode(search, row, epochs=epochs, cap_mb=cap_mb)
        self._holds_at = 0.0

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        if self._node is not None:
            with contextlib.suppress(OSError):
                self._node.remove_trial()

    def reached(self, epoch: int, value: float) -> None:
        """It has finished an epoch."""
        self._write(epoch=epoch, value=value)

    def holds(self, held_mb: float) -> None:
        """What its process holds now; call it as often as you like."""
        if time.monotonic() >= self._holds_at:
            self._holds_at = time.monotonic() + HOLDS_S
            self._write(held_mb=round(held_mb, 1))

    def _write(self, **changes: Any) -> None:
        self._trial = replace(self._trial, **changes)
        if self._node is not None:
            with contextlib.suppress(OSError):  # a full disk: the trial is none the worse for it
                self._node.write_trial(self._trial)
