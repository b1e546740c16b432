"""Gathers the images of several requests into batches, which one thread computes.

N images of one request, M of a batch, K classes; pixels are N x 32 x 32 x 3 of uint8.

A batch is begun when the one before it is done. It waits for requests that are on their way, at most `gathering_s`
after its first images came; where none are, it waits for nothing.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.inference.classifier import Classifier
from pipeline.serving.bounds import Bounds
from pipeline.serving.refusal import too_busy

SIZES = (1, 2, 4, 8, 16, 24, 32)
"""Of batches as the model sees them: what oneDNN prepares for each size it keeps, 8 MB of small."""

IMAGES_A_THREAD = 4
"""In a batch, at least: for fewer it takes longer to wake a thread than it saves."""

Observer = Callable[[int, float], object]
"""Told how many images a batch had, and how many seconds it took."""


@dataclass(frozen=True)
class Answer:
    """The probabilities (N x K) of one request's images, and the model that they are of."""

    classifier: Classifier
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class _Piece:
    """Images of one request: all of them, or as many as go into one batch."""

    classifier: Classifier
    pixels: NDArray[np.uint8]
    found: "Future[NDArray[np.float32]]"
    came_at: float


class Batcher:
    """The thread that computes, and the images that wait for it.

    `model` is asked for the model of each request, which all of its images are classified with.
    """

    def __init__(
        self, model: Callable[[], Classifier], bounds: Bounds, observe: Observer = lambda images, seconds: None
    ) -> None:
        self._model = model
        self._bounds = bounds
        self._observe = observe
        self._changed = threading.Condition()
        self._waiting: deque[_Piece] = deque()
        self._waiting_images = self._on_their_way = 0
        self._is_closed = False
        self._most_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, name="compute", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether images that are given to it are computed."""
        return self._thread.is_alive()

    @property
    def queued_images(self) -> int:
        """Images that wait."""
        return self._waiting_images

    @contextmanager
    def on_its_way(self) -> Iterator[Callable[[], None]]:
        """Within this a request is read, whose images will come; what it yields is called when they have."""
        arrived = False

        def has_arrived() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                with self._changed:
                    self._on_their_way -= 1
                    self._changed.notify()

        with self._changed:
            self._on_their_way += 1
        try:
            yield has_arrived
        finally:
            has_arrived()

    def submit(self, pixels: NDArray[np.uint8]) -> Awaitable[Answer]:
        """Have the images of one request (N x 32 x 32 x 3) classified: they wait from now on.

        Raises:
            Refusal: too many images wait already.
        """
        return _answer(self._queue(pixels))

    def _queue(self, pixels: NDArray[np.uint8]) -> list[_Piece]:
        classifier, most, now = self._model(), self._bounds.batch_images, time.monotonic()
        starts = range(0, max(len(pixels), 1), most)
        pieces = [_Piece(classifier, pixels[start : start + most], Future(), now) for start in starts]
        with self._changed:
            if self._is_closed:
                raise too_busy("the server is about to end")
            if self._waiting_images and self._waiting_images + len(pixels) > self._bounds.queued_images:
                raise too_busy(f"{self._waiting_images} images wait already")
            self._waiting.extend(pieces)
            self._waiting_images += len(pixels)
            self._changed.notify()
        return pieces

    def close(self) -> None:
        """Compute what waits, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._is_ready():
                    self._changed.wait(self._patience_s())
                if not self._waiting:
                    return  # closed
                batch = self._take_batch()
            if batch:
                self._compute(batch)

    def _take_batch(self) -> list[_Piece]:
        """The pieces to compute next: of one model, without those that nobody waits for any more."""
        batch: list[_Piece] = []
        classifier, images = self._waiting[0].classifier, 0
        while self._waiting:
            piece = self._waiting[0]
            if piece.classifier is not classifier or (
                batch and images + len(piece.pixels) > self._bounds.batch_images
            ):
                break
            self._waiting.popleft()
            self._waiting_images -= len(piece.pixels)
            if piece.found.set_running_or_notify_cancel():
                batch.append(piece)
                images += len(piece.pixels)
        return batch

    def _is_ready(self) -> bool:
        if not self._waiting:
            return self._is_closed
        is_full = self._waiting_images >= self._bounds.batch_images
        return is_full or not self._on_their_way or self._patience_s() == 0

    def _patience_s(self) -> float | None:
        """How long the images that came first may still wait for others; None where there are none."""
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].came_at + self._bounds.gathering_s - time.monotonic())

    def _compute(self, batch: Sequence[_Piece]) -> None:
        began = time.monotonic()
        pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([piece.pixels for piece in batch])
        try:
            filled = filled_up(pixels)
            torch.set_num_threads(max(1, min(self._most_threads, len(filled) // IMAGES_A_THREAD)))
            found = batch[0].classifier.probabilities(filled)[: len(pixels)]  # M x K
        except BaseException as error:  # whoever asked is told, and the next batch is computed
            for piece in batch:
                piece.found.set_exception(error)
            return
        self._observe(len(pixels), time.monotonic() - began)
        start = 0
        for piece in batch:
            end = start + len(piece.pixels)
            piece.found.set_result(found[start:end])
            start = end


async def _answer(pieces: Sequence[_Piece]) -> Answer:
    found = await asyncio.gather(*(asyncio.wrap_future(piece.found) for piece in pieces))
    return Answer(pieces[0].classifier, found[0] if len(found) == 1 else np.concatenate(found))


def filled_up(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A batch (M x 32 x 32 x 3) with black images after it, up to the next size that is kept."""
    size = next((size for size in SIZES if size >= len(pixels)), len(pixels))
    if size == len(pixels):
        return pixels
    return np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), np.uint8)])
