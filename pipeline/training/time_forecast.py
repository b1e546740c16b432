"""How long a training will take, and how much arithmetic it is, from the speed of a few timed steps."""

from dataclasses import dataclass

from pipeline.counts import counted
from pipeline.durations import readable

TIMED_STEPS = 5
TIMED_S = 2.0
"""How many steps are timed at least, and for how long. The first step, which sets everything up, is not timed."""
FORECAST_TAG = "seqpipe.forecast_s"
"""On a training's run: how long it was said to take, in seconds, after its first steps."""
FORWARD_SHARE = 1 / 3
"""A validation image costs a forward pass, which is a third of a training step."""


@dataclass(frozen=True)
class TotalWork:
    """Of a whole training, without early stopping."""

    epochs: int
    training_images: int
    validation_images: int

    @property
    def images(self) -> float:
        """Its whole arithmetic, as a number of images that a training step computes."""
        return self.epochs * (self.training_images + FORWARD_SHARE * self.validation_images)

    def pflop(self, flops_per_image: float) -> float:
        """Its whole arithmetic, in 10^15 floating point operations."""
        return self.images * flops_per_image / 1e15

    def seconds(self, images_per_s: float) -> float:
        """How long it takes at that speed."""
        return self.images / images_per_s

    def in_words(self, images_per_s: float, flops_per_image: float) -> str:
        """A line on it at the measured speed."""
        time, pflop = readable(self.seconds(images_per_s)), self.pflop(flops_per_image)
        return f"about {time} for {counted(self.epochs, 'epoch')} at {images_per_s:.0f} images/s, {pflop:.2g} PFLOP"


class Stopwatch:
    """Times the first steps of a training."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._steps = self._images = 0

    def step(self, now: float, images: int) -> float | None:
        """Count a step of `images` images; returns images per second once enough steps were timed, else None."""
        if self._began is None:
            self._began = now
            return None
        self._steps += 1
        self._images += images
        timed_s = now - self._began
        return self._images / timed_s if self._steps >= TIMED_STEPS and timed_s >= TIMED_S else None
