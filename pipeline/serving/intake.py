"""Takes in the body of a request, within its bounds, and has it read as images by threads beside the event loop."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from pipeline.serving.bodies import read_images
from pipeline.serving.bounds import MB, Bounds, HeldBytes
from pipeline.serving.refusal import Refusal, too_busy
from pipeline.serving.sent_images import SentImages

MOST_DISCARDED = 8
"""Times the bound of a body that are read and thrown away, so that its sender sees the answer and no broken pipe."""


class Intake:
    """Reads bodies; `readers` is how many threads decode images."""

    def __init__(self, bounds: Bounds, readers: int) -> None:
        self._bounds = bounds
        self._held = HeldBytes(bounds.bodies_bytes)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="read images")

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown()

    async def images(self, request: Request) -> SentImages:
        """The images of a request.

        Raises:
            Refusal: it has none that can be read, or is larger than the bounds allow.
        """
        async with self._body(request) as body:
            kind = request.headers.get("content-type", "")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, read_images, body, kind, self._bounds)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body, which counts among those that are held within this."""
        held = 0
        body = bytearray()
        try:
            async with asyncio.timeout(self._bounds.reading_s):
                await self._require_small(request)
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._bounds.body_bytes:
                        raise self._too_large()
                    if not self._held.take(len(chunk)):
                        raise too_busy("too many large requests are being read")
                    held += len(chunk)
                    body += chunk
            yield body
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {self._bounds.reading_s:.0f} s") from None
        except ClientDisconnect:
            raise Refusal(400, "the request was broken off") from None
        finally:
            self._held.give_back(held)

    async def _require_small(self, request: Request) -> None:
        """Refuse a body by what its head says, after it has been sent if that does not take long."""
        said = request.headers.get("content-length", "")
        length = int(said) if said.isdecimal() else 0
        if length <= self._bounds.body_bytes:
            return
        waits_to_send = "expect" in request.headers  # for our word
        if length <= MOST_DISCARDED * self._bounds.body_bytes and not waits_to_send:
            async for _ in request.stream():
                pass
        raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self._bounds.body_bytes / MB:.0f} MB")
