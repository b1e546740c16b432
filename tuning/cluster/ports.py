"""The fixed ports of a node: which Ray process listens on which, and which of them something else has taken.

They begin at one number, lie below the ephemeral ports of Linux and macOS (32768 and 49152), and are the same on
every node, so that one line opens them in a firewall. Ray listens on every interface, whatever address it is told.

A node that joins again takes the other half of them. After a network that was away for a minute the head's
connections to its old ports may be silent for another one, until TCP tries again; gRPC would use them for the new
node too, and Ray's scheduler does not get over a call that ends so: no trial would ever start there.
"""

import contextlib
import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from tuning.errors import ClusterError

DEFAULT_BASE = 6480
_COUNT = 110
_FIRST = (1, 57)
"""Where the ports of the even and of the odd turns begin."""
_SERVICES = 6
_WORKERS = (range(10, 57), range(63, _COUNT))
_LOWEST, _ABOVE = 1024, 32768


@dataclass(frozen=True)
class Ports:
    """The ports of a node, all counted from `base`."""

    base: int = DEFAULT_BASE
    turn: int = 0
    """How often the node has joined before."""

    def __post_init__(self) -> None:
        if not _LOWEST <= self.base <= _ABOVE - _COUNT:
            raise ClusterError(
                f"the ports cannot begin at {self.base}; choose a number from {_LOWEST} to {_ABOVE - _COUNT}"
            )

    @property
    def gcs(self) -> int:
        """The head's alone: the port that others join by."""
        return self.base

    @property
    def node_manager(self) -> int:
        """The raylet; the head calls it to see whether the node lives."""
        return self._service(0)

    @property
    def object_manager(self) -> int:
        return self._service(1)

    @property
    def runtime_env_agent(self) -> int:
        return self._service(2)

    @property
    def dashboard_agent_grpc(self) -> int:
        return self._service(3)

    @property
    def dashboard_agent_listen(self) -> int:
        return self._service(4)

    @property
    def metrics(self) -> int:
        return self._service(5)

    @property
    def client_server(self) -> int:
        """Opened by the head where Ray's client is installed."""
        return self.base + 7

    @property
    def workers(self) -> range:
        """One for each worker process."""
        own = _WORKERS[self.turn % len(_WORKERS)]
        return range(self.base + own.start, self.base + own.stop)

    def all(self, *, is_head: bool) -> tuple[int, ...]:
        """Every port that a node may listen on, now or after it has joined again."""
        found = (self.gcs, self.client_server) if is_head else ()
        for turn, first in enumerate(_FIRST):
            services = range(self.base + first, self.base + first + _SERVICES)
            found = (*found, *services, *Ports(self.base, turn).workers)
        return found

    def _service(self, number: int) -> int:
        return self.base + _FIRST[self.turn % len(_FIRST)] + number

    def in_words(self) -> str:
        """For a firewall: every port between this laptop and the others."""
        return f"{self.base}-{self.base + _COUNT - 1}"


@dataclass(frozen=True)
class Taken:
    """A port that cannot be listened on."""

    port: int
    why: str

    def __str__(self) -> str:
        return f"{self.port} ({self.why})"


def taken(ports: Iterable[int]) -> tuple[Taken, ...]:
    """Those that something listens on already, with its name where the system tells it."""
    found = [(port, error) for port in ports if (error := _error_of_binding(port)) is not None]
    holders = _holders() if found else {}
    return tuple(
        Taken(port, holders.get(port, "in use") if error.errno == errno.EADDRINUSE else error.strerror or str(error))
        for port, error in found
    )


def require_free(ports: Ports, *, is_head: bool) -> None:
    """Raise `ClusterError` if a port is taken; the message names the next numbers that are free."""
    blocked = taken(ports.all(is_head=is_head))
    if not blocked:
        return
    named = ", ".join(map(str, blocked[:3])) + (f" and {len(blocked) - 3} more" if len(blocked) > 3 else "")
    bases = range(ports.base + _COUNT, _ABOVE - _COUNT, _COUNT)
    free = next((base for base in bases if not taken(Ports(base).all(is_head=is_head))), None)
    advice = f"end that, or let the ports begin at {free}" if free else "end that, or choose others"
    raise ClusterError(f"{'port' if len(blocked) == 1 else 'ports'} {named} cannot be used; {advice}")


def can_connect(address: str, port: int, within_s: float = 2.0) -> bool:
    """Whether something accepts a connection there."""
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), within_s).close()
        return True
    return False


def _error_of_binding(port: int) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else ports of closed connections count, too
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError as error:
            return error
    return None


def _holders() -> dict[int, str]:
    """Who listens on which port; a user sees only their own processes, and on macOS none."""
    found: dict[int, str] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr:
                with contextlib.suppress(psutil.Error):
                    name = psutil.Process(connection.pid).name()
                    found[connection.laddr.port] = f"in use by {name}, process {connection.pid}"
    return found
