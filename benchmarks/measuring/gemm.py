"""The GEMM peak of the moment, through both libraries that torch has: the BLAS, and oneDNN as a 1x1 convolution.

oneDNN's convolution is called by name: with a single thread `F.conv2d` goes to the BLAS.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from measuring.ours import Precision
from measuring.timing import Times

SIDE = 2048
GFLOP = 2 * SIDE**3 / 1e9
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LIBRARIES = ("BLAS", "oneDNN")


def ways(precisions: tuple[Precision, ...]) -> dict[str, Callable[[], object]]:
    """Square products to be timed among whatever their peak is wanted for."""
    found: dict[str, Callable[[], object]] = {}
    for precision in precisions:
        a, b = (torch.randn(SIDE, SIDE).to(TYPES[precision]) for _ in range(2))
        image = a.view(1, SIDE, 1, SIDE).permute(0, 3, 1, 2)  # 1 x K x 1 x M, channels last
        kernel = b[:, :, None, None].contiguous(memory_format=torch.channels_last)
        found[f"GEMM {precision} BLAS"] = lambda a=a, b=b: torch.mm(a, b)  # type: ignore[misc]
        found[f"GEMM {precision} oneDNN"] = lambda image=image, kernel=kernel: _convolution(image, kernel)  # type: ignore[misc]
    return found


def rates(times: Mapping[str, Times], precision: Precision) -> dict[str, float]:
    """GFLOP/s through each library, and the larger: the peak."""
    found = {library: GFLOP / times[f"GEMM {precision} {library}"].median_s for library in LIBRARIES}
    return {name: round(rate, 1) for name, rate in (found | {"peak": max(found.values())}).items()}


def _convolution(image: Tensor, kernel: Tensor) -> Tensor:
    out: Tensor = torch.ops.aten.mkldnn_convolution(image, kernel, None, [0, 0], [1, 1], [1, 1], 1)
    return out
