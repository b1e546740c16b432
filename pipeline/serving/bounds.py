"""What one request, and all of them together, may take of the server."""

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Bounds:
    """Bounds of a server; what is past them is refused with 413, or with 429 if it would be fine a moment later."""

    body_bytes: int = 16 * MB
    """Of one request."""
    bodies_bytes: int = 64 * MB
    """Of all requests that are being read."""
    image_bytes: int = 64 * MB
    """Held to decode one image: 16 million pixels without transparency, more of a JPEG, which is decoded smaller."""
    images: int = 256
    """In one request."""
    queued_images: int = 512
    """That wait to be classified."""
    batch_images: int = 32
    """Classified at once: more are no faster, and take more memory."""
    gathering_s: float = 0.005
    """For which a batch waits for requests that are on their way."""
    reading_s: float = 30.0
    """In which a request has to have arrived."""
    values: int = 1_200_000
    """Numbers and strings in one JSON or CSV document: somewhat more than so many images have."""


class HeldBytes:
    """The bytes of the bodies that are being read; used by the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def take(self, count: int) -> bool:
        """Take so many; whether they are there to be taken."""
        if self._held + count > self._most:
            return False
        self._held += count
        return True

    def give_back(self, count: int) -> None:
        self._held -= count
