"""The learning rate as a function of the step: warm-up and schedule."""

import math

from pipeline.config.schema import TrainConfig


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total_steps`.

    one_cycle (Smith and Topin 2017) rises along a half cosine from 1/25 of the peak and falls along another one to
    about 0; cosine rises linearly and falls the same way; linear rises and falls linearly, to about 0; constant stays
    at the peak.
    """
    peak = config.learning_rate
    if config.schedule == "constant":
        return peak
    warmup = config.warmup_fraction * total_steps
    if step < warmup:
        if config.schedule in ("cosine", "linear"):
            return peak * (step + 1) / (warmup + 1)
        start = peak / 25
        return start + (peak - start) * (1 - math.cos(math.pi * step / warmup)) / 2
    progress = (step - warmup) / max(1.0, total_steps - warmup)
    if config.schedule == "linear":
        return peak * (1 - progress)
    return peak * (1 + math.cos(math.pi * min(1.0, progress))) / 2
