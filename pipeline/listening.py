"""Ports to listen on: whether one is free, which one is, and whether an address is this machine's alone."""

import ipaddress
import socket

from pipeline.errors import ConfigError

_PORTS_TRIED = 100


def require_free(host: str, port: int) -> None:
    """Raise `ConfigError`, which names a free port, if nobody can listen on this one."""
    if not _is_free(host, port):
        raise refused(host, port)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's; the message names a free port.
    """
    # the protocol, too: asyncio sends an answer's parts at once (TCP_NODELAY) only where a socket says that it is TCP
    listener = socket.socket(_family(host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError):
        listener.close()
        raise refused(host, port) from None
    return listener


def refused(host: str, port: int) -> ConfigError:
    """The error for a port that cannot be listened on."""
    tried = range(port + 1, min(port + _PORTS_TRIED, 65536))
    free = next((other for other in tried if _is_free(host, other)), None)
    advice = f"use --port {free}" if free else "choose another with --port"
    return ConfigError(f"{host}:{port} cannot be listened on (in use, or not this machine's); {advice}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address: a number, or a name that stands for such addresses alone."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return bool(found) and all(ipaddress.ip_address(one[4][0]).is_loopback for one in found)
    except (OSError, UnicodeError, ValueError):
        return False


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
