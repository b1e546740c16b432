"""What 8-bit weights cost in accuracy and gain in speed, against the graph that they were made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.predictions import Predictions
from pipeline.exporting.check import in_batches
from pipeline.exporting.evaluation_images import EvaluationImages
from pipeline.exporting.onnx_runtime import OnnxClassifier
from pipeline.exporting.paired_latency import PairedLatency, paired_latency
from pipeline.promotion.comparison import Comparison, compare

_AT_ONCE = (250,)


@dataclass(frozen=True)
class Int8Cost:
    """The 8-bit model (second) against the one in fp32 (first), both in ONNX Runtime."""

    comparison: Comparison
    """On all test images."""
    latency: PairedLatency
    """Of one image."""
    threads: int
    bytes: tuple[int, int]
    """Of both files."""

    @property
    def in_words(self) -> list[str]:
        """Accuracy, then speed, then size."""
        found, latency = self.comparison, self.latency
        points = [100 * value for value in (found.accuracy.estimate, found.accuracy.low, found.accuracy.high)]
        faster = latency.times_as_fast
        return [
            f"accuracy {100 * found.second_accuracy:.2f} % against {100 * found.first_accuracy:.2f} % on the same "
            f"{found.counts.images} test images: {points[0]:+.2f} points (95 % interval {points[1]:+.2f} to "
            f"{points[2]:+.2f}, paired bootstrap)",
            f"only fp32 is right on {found.counts.only_first} of them, only int8 on {found.counts.only_second}: "
            f"p {found.p_value:.3g} (exact McNemar test, two-sided)",
            f"one image takes {latency.second_ms:.2f} ms against {latency.first_ms:.2f} ms with {self.threads} "
            f"thread{'s' * (self.threads != 1)}: {faster.estimate:.2f} times as fast ({faster.low:.2f} to "
            f"{faster.high:.2f} over {latency.rounds} rounds in turn)",
            f"{self.bytes[1] / 1e6:.2f} MB against {self.bytes[0] / 1e6:.2f} MB",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found, latency = self.comparison, self.latency
        return {
            "images": found.counts.images,
            "accuracy": {"fp32": found.first_accuracy, "int8": found.second_accuracy},
            "accuracy_difference": vars(found.accuracy),
            "log_loss_difference": vars(found.log_loss),
            "only_fp32_right": found.counts.only_first,
            "only_int8_right": found.counts.only_second,
            "p_value": found.p_value,
            "latency_ms": {"fp32": latency.first_ms, "int8": latency.second_ms},
            "times_as_fast": vars(latency.times_as_fast),
            "rounds": latency.rounds,
            "threads": self.threads,
            "bytes": {"fp32": self.bytes[0], "int8": self.bytes[1]},
        }


def int8_cost(
    whole: Path, quantised: Path, images: EvaluationImages, classes: tuple[str, ...], threads: int
) -> Int8Cost:
    """Compare the two graphs on all test images, and time them on one."""
    models = [OnnxClassifier(path, threads) for path in (whole, quantised)]
    first, second = (
        Predictions(images.ids, images.labels, in_batches(model, images.pixels, _AT_ONCE), classes)
        for model in models
    )
    one = images.pixels[:1]
    latency = paired_latency(lambda: models[0].probabilities(one), lambda: models[1].probabilities(one))
    sizes = (whole.stat().st_size, quantised.stat().st_size)
    return Int8Cost(compare(first, second), latency, threads, sizes)
