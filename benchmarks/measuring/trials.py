"""Real trials for the benchmarks of the search; imported in the trials' processes, so nothing heavy is."""

import mmap
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from measuring.timing import say
from pipeline.config.schema import RunConfig
from pipeline.progress import SilentReporter
from pipeline.search.trial import TrainTrial, warm_up
from pipeline.stages import prepare
from pipeline.stages.context import Context
from pipeline.stop import StopToken
from pipeline.tracking.settings import load as load_mlflow
from pipeline.workspace.paths import Workspace
from tuning.capped.run_capped import Send
from tuning.trial import Reported, Trial

MB = 1_000_000
PAGE = 4096
TIMES = ("images_per_second",)
"""What differs from one run of a trial to the next."""
NONE = "none"
HOGS = ("batch", "leak", "pages")
"""A batch that is too large, a list that grows, and shared pages that are touched one by one."""


def training_trial(config: RunConfig, root: Path) -> TrainTrial:
    """The objective of `seqpipe tune`, with the data prepared from a workspace's data set."""
    workspace = Workspace(root)
    folder = Path(tempfile.mkdtemp(prefix="prepared-", dir=root))
    context = Context(workspace, SilentReporter(), StopToken(), load_mlflow(workspace, {}), None)
    return TrainTrial(config, prepare.prepare(config, folder, context))


@dataclass(frozen=True)
class WithHogs:
    """A real training; a configuration whose `hog` names one takes memory without end, beside its training or by it.

    Each trial writes who it is into `folder`, for who watches from outside.
    """

    training: TrainTrial
    folder: str
    """The watcher's."""
    large_batch: int

    def __call__(self, trial: Trial) -> None:
        values = dict(trial.config)
        hog = values.pop("hog")
        (Path(self.folder) / str(os.getpid())).write_text(hog)
        if hog == "batch":
            values["train.batch_size"] = self.large_batch
        elif hog != NONE:
            threading.Thread(target={"leak": leak, "pages": touch_pages}[hog], daemon=True).start()
        trial.config = values
        self.training(trial)


def leak() -> None:
    """About 300 MB a second."""
    held = []
    while True:
        held.append(bytearray(b"x") * (3 * MB))
        time.sleep(0.01)


def touch_pages() -> None:
    """The same in pages that no limit of the kernel refuses."""
    pages = mmap.mmap(-1, 16_000 * MB)
    for offset in range(0, len(pages), PAGE):
        pages[offset] = 1
        if offset % (3 * MB) < PAGE:
            time.sleep(0.01)


def run_in_a_loop(
    objective: TrainTrial, configs: Sequence[Mapping[str, Any]], folder: Path
) -> list[dict[int, dict[str, float]]]:
    """Each configuration's epochs, trained one after the other in this process, without any search."""
    warm_up(objective.base)
    found = []
    for number, config in enumerate(configs):
        scratch = folder / f"alone-{number}"
        scratch.mkdir(parents=True)
        epochs: dict[int, dict[str, float]] = {}

        def hear(message: object, epochs: dict[int, dict[str, float]] = epochs) -> None:
            if isinstance(message, Reported):
                epochs[message.report.epoch] = untimed(message.report.value, message.report.metrics)

        objective(Trial(dict(config), scratch, hear, lambda: False))
        found.append(epochs)
    return found


def train_alone(send: Send, training: TrainTrial, folder: Path, memory_mb: float) -> float:
    """Train as a trial does; images per second of its last epoch."""
    speeds: list[float] = []

    def on_message(message: object) -> None:
        if isinstance(message, Reported):
            speeds.append(message.report.metrics["images_per_second"])

    training(Trial({}, folder, on_message, lambda: False, None, memory_mb))
    return speeds[-1]


def loop_s(training: TrainTrial, configs: Sequence[Mapping[str, Any]], at_once: int, folder: Path) -> float:
    """Seconds in which so many processes train every configuration, their start and imports included."""
    started = time.monotonic()
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        done = [
            pool.submit(run_in_a_loop, training, configs[first::at_once], folder / str(first))
            for first in range(at_once)
        ]
        assert sum(len(one.result()) for one in done) == len(configs)
    seconds = time.monotonic() - started
    say(f"loop of {at_once} at once: {seconds:.1f} s")
    return seconds


def untimed(value: float, metrics: Mapping[str, float]) -> dict[str, float]:
    """An epoch's figures that do not depend on how fast it was."""
    return {"value": value} | {name: each for name, each in metrics.items() if name not in TIMES}
