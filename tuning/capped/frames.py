"""Frames on the data socket between a caller and its capped child: one byte of kind, eight of length, the body.

The child receives a single frame, the call (pickled). It sends messages (pickled), then at most one last frame:
a value (pickled) or an error (JSON).
"""

import socket
import struct
from collections.abc import Iterator

CALL, MESSAGE, VALUE, ERROR = b"c", b"m", b"v", b"e"
_HEADER = struct.Struct("!cQ")


class FrameReader:
    """Puts frames together from the pieces that a stream delivers."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The kind and body of each frame that this piece completes."""
        self._buffer += piece
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, body


def send_frame(end: socket.socket, kind: bytes, body: bytes) -> None:
    """Send one frame; blocks while the other side does not read."""
    end.sendall(_HEADER.pack(kind, len(body)))
    end.sendall(body)
