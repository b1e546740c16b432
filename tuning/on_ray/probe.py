"""What answers at an address, told within two seconds: nothing, something that is no head, or a head."""

import contextlib
import socket
import time
from dataclasses import dataclass

from tuning.cluster.node_record import NodeRecord
from tuning.on_ray.board import Board, BoardError, TokenRefusedError
from tuning.on_ray.connection import first_line

CONNECT_S = 1.0
_SPEAK_S = 0.7
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of gRPC says first: the preface of HTTP/2, and settings without any."""
_SETTINGS, _SETTINGS_AT = 4, 3
"""A server of HTTP/2 begins with its own settings; the kind of a frame is its fourth byte."""
_SPEAKERS = {
    b"HTTP/1": "a web server",
    b"-ERR": "a Redis server",
    b"-NOAUTH": "a Redis server",
    b"-DENIED": "a Redis server",
    b"SSH-": "an SSH server",
}


@dataclass(frozen=True)
class Nothing:
    """Nobody answers."""

    why: str
    refused: bool = False
    """The machine is there and has nothing on that port; otherwise it may be out of reach for a moment."""


@dataclass(frozen=True)
class NotAHead:
    """Something answers that no `cluster up` has made."""

    what: str


@dataclass(frozen=True)
class WrongToken:
    """A head that does not let this process in."""


@dataclass(frozen=True)
class Head:
    """A head, and what it says of itself."""

    record: NodeRecord
    session: str
    """Changes with every start of the head."""


Answer = Nothing | NotAHead | WrongToken | Head


def ask(address: str, token: str) -> Answer:
    """What is at HOST:PORT."""
    said = _speaker(address)
    if said is not None:
        return said
    try:
        with Board(address, token) as board:
            heads = [record for record in board.nodes() if record.is_head]
            if not heads:
                return NotAHead("a Ray cluster that no `seqpipe cluster up` has made")
            return Head(heads[0], board.session)
    except TokenRefusedError:
        return WrongToken()
    except BoardError as error:
        return NotAHead(f"no head ({error})")


def listens(address: str) -> Nothing | None:
    """Whether something accepts connections at HOST:PORT: None, or why not; within a second."""
    try:
        _connection(address).close()
    except OSError as error:
        return _nothing(error)
    return None


def _speaker(address: str) -> Nothing | NotAHead | None:
    """Who speaks at HOST:PORT; None if it speaks HTTP/2, as gRPC does.

    Ray's own client would wait 40 s for a server of another kind.
    """
    try:
        with _connection(address) as connection:
            connection.sendall(_HELLO)
            begins = _begin_of_answer(connection)
    except OSError as error:
        return _nothing(error)
    if len(begins) > _SETTINGS_AT and begins[_SETTINGS_AT] == _SETTINGS:
        return None
    known = (kind for start, kind in _SPEAKERS.items() if begins.startswith(start))
    return NotAHead(next(known, "a program that is no head" if begins else "a program that does not speak"))


def _connection(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)


def _nothing(error: OSError) -> Nothing:
    return Nothing(first_line(error), isinstance(error, ConnectionRefusedError))


def _begin_of_answer(connection: socket.socket) -> bytes:
    until, received = time.monotonic() + _SPEAK_S, b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while len(received) < 9 and (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            more = connection.recv(64)
            if not more:
                break
            received += more
    return received
