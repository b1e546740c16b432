"""Which address of this laptop leads to another one; it changes when the laptop changes its network."""

import contextlib
import socket


def address_towards(host: str, port: int) -> str | None:
    """This machine's address on the way to a host; None if there is no way. Nothing is sent."""
    with contextlib.suppress(OSError):
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect(address)
            return str(unsent.getsockname()[0])
    return None
