"""Forecasts trainings before they start: their memory, and how long they take on this machine. No torch here.

The figures come from a process of its own (`forecast_child`), which is started when it is needed.
"""

import contextlib
import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pipeline.config.schema import RunConfig
from pipeline.data.subset import expected_images
from pipeline.errors import MachineUnfitError
from pipeline.training.memory_forecast import MLFLOW_MB, Fit, TrainingMemory, what_counts
from pipeline.training.memory_limit import limit_of
from pipeline.training.time_forecast import TotalWork
from pipeline.workspace.fingerprints import canonical_json

_CHILD = "pipeline.training.forecast_child"
ANSWER_S = 300.0
"""How long to wait for an answer: the first one on a machine may build the kernel and time steps."""
CHECKPOINTS = 3
"""Of a training on disk at once: two that are kept, and one that is being written."""
WEIGHTS = 3
"""Copies of the weights that stay: the best ones, the last ones, and MLflow's."""


@dataclass(frozen=True)
class ArchitectureMemory:
    """What the memory of trainings of one architecture depends on."""

    steps: TrainingMemory
    base_mb: float
    """What a process holds that has imported what a training needs."""
    device: str

    def fit(self, config: RunConfig, cap_mb: float) -> Fit:
        """How a training is fitted to a cap; `peak_mb` is above it if nothing fits."""
        return self.steps.fit_config(config, cap_mb, self.base_mb)


@dataclass(frozen=True)
class TrainingForecast:
    """What a training needs of this machine."""

    peak_mb: float
    limit_mb: float | None
    micro_batch_size: int
    checkpointing: bool
    images_per_s: float | None
    """None where it does not fit."""
    seconds: float | None
    """Of all epochs, without early stopping."""
    pflop: float
    disk_mb: float
    """Its checkpoints and weights, and the copy that MLflow keeps."""

    @property
    def fits(self) -> bool:
        """Whether it stays within its limit."""
        return self.limit_mb is None or self.peak_mb <= self.limit_mb

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "fits": self.fits}


class TrainingForecaster:
    """Asks the process, and remembers what it said of each architecture; `close` ends it.

    Raises:
        MachineUnfitError: what the config asks for is not here, or the process ended without an answer.
    """

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._child: subprocess.Popen[str] | None = None
        self._known: dict[bytes, ArchitectureMemory] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def memory(self, config: RunConfig, classes: int) -> ArchitectureMemory:
        """What the memory of this training depends on."""
        compute = config.compute.model_dump(mode="json", include={"device", "precision", "kernel", "threads"})
        key = canonical_json([what_counts(config), compute, classes])
        if key not in self._known:
            found = self._ask(config, classes)
            memory = TrainingMemory.from_json(found["memory"])
            self._known[key] = ArchitectureMemory(memory, found["base_mb"], found["device"])
        return self._known[key]

    def forecast(self, config: RunConfig, limit_mb: float | None = None) -> TrainingForecast:
        """What a training of `seqpipe run` needs; without `limit_mb`, within the limit that it would have here."""
        return self._forecast(config, limit_mb, MLFLOW_MB)

    def forecast_trial(self, config: RunConfig, cap_mb: float) -> TrainingForecast:
        """What a trial of a search needs."""
        return self._forecast(config, cap_mb, 0.0)

    def _forecast(self, config: RunConfig, limit_mb: float | None, beside_mb: float) -> TrainingForecast:
        classes = len(config.data.class_names)
        memory = self.memory(config, classes)
        if limit_mb is None and (limit := limit_of(config.compute, memory.device)) is not None:
            limit_mb = limit.mb
        fit = memory.fit(config, math.inf if limit_mb is None else limit_mb - beside_mb)
        peak_mb = fit.peak_mb + beside_mb
        work = TotalWork(config.train.epochs, *expected_images(config.data))
        images_per_s = None  # not timed where it does not fit
        if limit_mb is None or peak_mb <= limit_mb:
            found = self._ask(config, classes, images=fit.micro_batch_size, checkpointing=fit.checkpointing)
            images_per_s = round(found["images_per_s"], 1)
        steps = memory.steps
        copies = 1 + steps.optimizer_copies + (config.train.ema_decay is not None)
        flops_per_image = steps.flops_per_image + steps.optimizer_flops / config.train.batch_size
        return TrainingForecast(
            peak_mb=round(peak_mb, 1),
            limit_mb=None if limit_mb is None else round(limit_mb, 1),
            micro_batch_size=fit.micro_batch_size,
            checkpointing=fit.checkpointing,
            images_per_s=images_per_s,
            seconds=round(work.images / images_per_s, 1) if images_per_s else None,
            pflop=float(f"{work.pflop(flops_per_image):.4g}"),
            disk_mb=round((CHECKPOINTS * copies + WEIGHTS) * steps.weights_mb, 1),
        )

    def close(self) -> None:
        """End the process, also while another thread waits for it; the next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None
            assert child.stdout is not None
            child.kill()  # it keeps nothing that another would not find again
            child.wait()
            with contextlib.suppress(OSError):
                child.stdin.close()
            child.stdout.close()

    def _ask(self, config: RunConfig, classes: int, **more: Any) -> Mapping[str, Any]:
        child = self._child = self._child or _started()
        assert child.stdin is not None
        assert child.stdout is not None
        request = {"config": config.model_dump(mode="json"), "classes": classes, **more}
        line = ""
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            if not select.select([child.stdout], [], [], self._answer_s)[0]:
                raise MachineUnfitError(
                    f"no forecast within {self._answer_s:.0f} s; try again when the machine is less busy"
                )
            line = child.stdout.readline()
        except (OSError, ValueError):
            pass  # it has ended, or another thread has closed it
        except BaseException:
            self.close()  # its answer would be taken for that to the next question
            raise
        if not line.endswith("\n"):
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
        env=os.environ.copy(),  # else the new process reads what another thread (Ray's start) may be changing
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the parent
    )
