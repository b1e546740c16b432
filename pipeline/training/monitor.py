"""What is reported and sampled between the steps of a training: progress, memory, load."""

import math
import os
import time

import psutil

from pipeline.progress import Reporter, TrainProgress
from pipeline.tracking.journal import Journal
from pipeline.training.checkpoint import Progress
from tuning import machine
from tuning.capped.run_capped import tree_memory_mb

REPORT_EVERY_S = 0.25
MEMORY_EVERY_S = 2.0
SYSTEM_METRICS_EVERY_S = 10.0


class Monitor:
    """Of one training; `validation_s` is how long its last validation took."""

    def __init__(self, epochs: int, steps: int, journal: Journal, reporter: Reporter) -> None:
        self.validation_s = 0.0
        self._epochs = epochs
        self._steps = steps
        self._journal = journal
        self._reporter = reporter
        self._system_at = time.monotonic()
        self._reported_at = self._memory_at = -math.inf
        self._memory_mb = 0.0

    def between_steps(self, progress: Progress) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            self._memory_mb = tree_memory_mb(os.getpid())
            progress.peak_memory_mb = max(progress.peak_memory_mb, self._memory_mb)
        if now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            self._report(progress)
        if now - self._system_at >= SYSTEM_METRICS_EVERY_S:
            self._system_at = now
            self._journal.metrics(system_metrics(self._memory_mb), step=progress.step)

    def _report(self, progress: Progress) -> None:
        step_s = (progress.steps_s + progress.epoch_s) / progress.step
        remaining_s = (self._steps - progress.step) * step_s
        remaining_s += (self._epochs - progress.epoch) * self.validation_s
        self._reporter.training(
            TrainProgress(
                epoch=progress.epoch + 1,
                epochs=self._epochs,
                step=progress.step,
                steps=self._steps,
                loss=progress.loss_sum / progress.seen,
                accuracy=progress.correct / progress.seen,
                images_per_s=progress.seen / progress.epoch_s,
                memory_mb=self._memory_mb,
                remaining_s=remaining_s,
            )
        )


def system_metrics(tree_mb: float) -> dict[str, float]:
    """The load of the machine, under the names that the MLflow UI shows as system metrics."""
    here = machine.this_machine()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": round(100 * (1 - here.available_bytes / here.memory_bytes), 1),
        "system/process_tree_memory_megabytes": tree_mb,
    }
