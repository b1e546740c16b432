"""How long a trained model takes for one image on this machine."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.workspace.durable_files import write_json

if TYPE_CHECKING:
    from torch import nn

FILE = "latency.json"
_WARM_UP = 3
_ROUNDS = 30
_ENOUGH_S = 1.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, and what computed it: only latencies of the same can be compared."""

    ms: float
    machine: str


def measure(model: "nn.Module") -> Latency:
    """Time a model, which is in evaluation mode on the CPU, on single images.

    The fastest of up to 30 passes counts, since other programs can make a pass slower, but none faster.
    """
    import torch

    from sequencer_models.capabilities import this_machine
    from sequencer_models.kernels import selected

    image = torch.zeros(1, 3, 32, 32)
    times: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        while len(times) < _WARM_UP + _ROUNDS and (len(times) <= _WARM_UP or time.perf_counter() - began < _ENOUGH_S):
            started = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - started)
    kernels, threads = selected(), torch.get_num_threads()
    computed_by = f"{threads} threads, {kernels.lstm} LSTM, {kernels.linear}, torch {torch.__version__}"
    machine = f"{this_machine().processor}, {computed_by}"
    return Latency(1000 * min(times[_WARM_UP:]), machine)


def keep(latency: Latency, folder: Path) -> None:
    """Write a latency beside the model's predictions."""
    write_json(folder / FILE, asdict(latency))


def kept(folder: Path) -> Latency | None:
    """The latency that was written there; None if there is none."""
    try:
        return Latency(**json.loads((folder / FILE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
