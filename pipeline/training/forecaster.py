"""Forecasts trainings before they start: their memory, and how long they take on this machine. No torch here.

The figures come from a process of its own (`forecast_child`), which is started when it is needed.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pipeline.config.schema import RunConfig
from pipeline.errors import MachineUnfitError
from pipeline.training.memory_forecast import Fit, TrainingMemory, what_counts
from pipeline.workspace.fingerprints import canonical_json

_CHILD = "pipeline.training.forecast_child"
_END_S = 5.0


@dataclass(frozen=True)
class Prospect:
    """What the memory of trainings of one architecture depends on."""

    memory: TrainingMemory
    base_mb: float
    """What a process holds that has imported what a training needs."""
    device: str

    def fit(self, config: RunConfig, cap_mb: float) -> Fit:
        """How a training is fitted to a cap; `peak_mb` is above it if nothing fits."""
        return self.memory.fit(
            cap_mb,
            config.train.batch_size,
            recompute=config.compute.recompute,
            averages=config.train.ema_decay is not None,
            base_mb=self.base_mb,
            images=config.compute.micro_batch_size,
        )


class TrainingForecaster:
    """Asks the process, and remembers what it said of each architecture; `close` ends it.

    Raises:
        MachineUnfitError: what the config asks for is not here, or the process ended without an answer.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._known: dict[bytes, Prospect] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prospect(self, config: RunConfig, classes: int) -> Prospect:
        """What the memory of this training depends on."""
        compute = config.compute.model_dump(mode="json", include={"device", "precision", "kernel", "threads"})
        key = canonical_json([what_counts(config), compute, classes])
        if key not in self._known:
            found = self._ask(config, classes)
            memory = TrainingMemory.from_json(found["memory"])
            self._known[key] = Prospect(memory, found["base_mb"], found["device"])
        return self._known[key]

    def speed(self, config: RunConfig, classes: int, fit: Fit) -> tuple[float, float]:
        """Images per second of a training, and the floating point operations of an image."""
        found = self._ask(config, classes, images=fit.micro_batch_size, recompute=fit.recompute)
        return found["images_per_s"], found["flops_per_image"]

    def close(self) -> None:
        """End the process; the next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(OSError):
                child.stdin.close()
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()

    def _ask(self, config: RunConfig, classes: int, **more: Any) -> Mapping[str, Any]:
        child = self._child = self._child or _started()
        assert child.stdin is not None
        assert child.stdout is not None
        request = {"config": config.model_dump(mode="json"), "classes": classes, **more}
        line = ""
        with contextlib.suppress(OSError):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        if not line:
            self.close()
            raise MachineUnfitError(f"the process that forecasts trainings ended (exit code {child.returncode})")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise MachineUnfitError(answer["error"])
        return answer


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the parent
    )
