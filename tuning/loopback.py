"""Whether this machine reaches itself; to check before starting servers, since a firewall causes no error."""

import socket

HOST = "127.0.0.1"
LIMIT_S = 2.0


def check(host: str = HOST) -> None:
    """Send a byte from a client to a server of our own; raises `OSError`, within seconds, if it does not arrive."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        server.settimeout(LIMIT_S)
        with socket.create_connection(server.getsockname()[:2], LIMIT_S) as here, server.accept()[0] as there:
            there.settimeout(LIMIT_S)
            here.sendall(b"!")
            if there.recv(1) != b"!":
                raise ConnectionError("what was sent did not arrive")
