"""Forecasts the memory of a search's trials, as `tuning.forecast` wants it."""

import threading
from dataclasses import dataclass, field

from pipeline.config.schema import RunConfig
from pipeline.search.space import configuration
from pipeline.training.forecaster import TrainingForecaster
from tuning.capacity import Node
from tuning.forecast import Forecast
from tuning.space import Config

IDLE_S = 3.0
"""The process that forecasts holds 300 to 600 MB, so it ends when it was not asked for so long."""


@dataclass
class TrialForecaster:
    """How each configuration is fitted to its cap; the trial itself comes to the same choice."""

    base: RunConfig
    classes: int
    _trainings: TrainingForecaster = field(default_factory=TrainingForecaster)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _idle: threading.Timer | None = None

    def __call__(self, config: Config, cap_mb: int, node: Node) -> Forecast:
        """The memory of a trial on any node: what tensors take does not depend on the processor."""
        whole = configuration(self.base, config)
        with self._lock:
            fit = self._trainings.memory(whole, self.classes).fit(whole, cap_mb)
        self._end_when_idle()
        return Forecast(fit.peak_mb, fit.change_in_words(whole))

    def close(self) -> None:
        """End the process, also one that has not answered yet."""
        if self._idle is not None:
            self._idle.cancel()
        self._trainings.close()

    def _close_idle(self) -> None:
        with self._lock:
            self._trainings.close()

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = threading.Timer(IDLE_S, self._close_idle)
        self._idle.daemon = True
        self._idle.start()
