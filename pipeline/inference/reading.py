"""Reads images in threads, some batches ahead of whoever computes with them.

Threads, not processes: decoders leave Python's lock while they work.
"""

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.inference.images import SIDE, read_image

AHEAD = 2
"""Batches that are read while one is computed."""
TOGETHER = 25
"""Files that one thread reads before another may go on."""

Outcome = NDArray[np.uint8] | str
"""Of one file: its 32 x 32 x 3 pixels, or why it cannot be read."""


@dataclass(frozen=True)
class ReadBatch:
    """Files that were read: the outcome of each."""

    files: Sequence[str]
    outcomes: Sequence[Outcome]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Those of the readable ones, in their order: N x 32 x 32 x 3."""
        readable = [outcome for outcome in self.outcomes if not isinstance(outcome, str)]
        return np.stack(readable) if readable else np.empty((0, SIDE, SIDE, 3), np.uint8)


def read_batches(files: Sequence[str], size: int, threads: int) -> Iterator[ReadBatch]:
    """Read the images of files, `size` of them at once, in their order."""
    starts = iter(range(0, len(files), size))
    waiting: deque[tuple[Sequence[str], list[Future[list[Outcome]]]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, thread_name_prefix="read images") as pool:
        warnings.filterwarnings("ignore", module="PIL")  # what matters of a strange file is whether it can be read

        def read_one_more() -> None:
            if (start := next(starts, None)) is not None:
                batch = files[start : start + size]
                parts = [batch[first : first + TOGETHER] for first in range(0, len(batch), TOGETHER)]
                waiting.append((batch, [pool.submit(_read, part) for part in parts]))

        try:
            for _ in range(AHEAD):
                read_one_more()
            while waiting:
                batch, parts = waiting.popleft()
                outcomes = [outcome for part in parts for outcome in part.result()]
                read_one_more()
                yield ReadBatch(batch, outcomes)
        finally:
            pool.shutdown(cancel_futures=True)


def _read(files: Sequence[str]) -> list[Outcome]:
    return [_outcome(file) for file in files]


def _outcome(file: str) -> Outcome:
    try:
        return read_image(file)
    except ImageError as error:
        return str(error)
