"""What a forecaster says of a configuration before it is started: the memory that a trial of it will hold.

    def forecast(config: Config, cap_mb: int, node: Node) -> Forecast:
        images, peak_mb = largest_micro_batch(config, cap_mb)
        return Forecast(peak_mb, f"{images} images at once")

    run_search(objective, ..., forecast=forecast)

It is called in a thread of the driver's process, for one configuration at a time, and may take a while. A method
`close`, if it has one, is called when the search ends. One that raises or hangs is not asked again.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from tuning.capacity import Node
from tuning.space import Config


@dataclass(frozen=True)
class Forecast:
    """The peak memory of a trial's whole process, imports included, fitted to its cap as well as it can be."""

    peak_mb: float
    fitted: str = ""
    """How it was fitted ("8 images at once, activations computed again"); empty where nothing had to change."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak_mb) and self.peak_mb > 0):
            raise ValueError(f"a forecast must be a number of MB above 0, not {self.peak_mb}")


class Forecaster(Protocol):
    """Forecasts the memory of a trial; a function will do."""

    def __call__(self, config: Config, cap_mb: int, node: Node) -> Forecast:
        """What a trial of `config` will hold on `node`; it fits if that is no more than `cap_mb`."""
