"""Addresses: which ones this machine has, which one a head binds, and how the one to join is written."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from tuning.cluster.ports import DEFAULT_BASE
from tuning.errors import ClusterError

_VIRTUAL = re.compile(r"^(docker|virbr|veth|br-|vmnet|vboxnet|lxc|lxd|cni|flannel|podman|bridge|awdl|llw)")
"""Interfaces of containers and virtual machines: every machine has such a network, and they do not meet."""
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""What Tailscale and the like give to machines."""
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class InterfaceAddress:
    """An address of this machine, and the network interface that has it."""

    interface: str
    address: str

    @property
    def is_choice(self) -> bool:
        """Whether a head binds it without being told to: other laptops of a local network may reach it."""
        found = ipaddress.ip_address(self.address)
        if found.version != 4 or found.is_loopback or found.is_link_local or _VIRTUAL.match(self.interface):
            return False
        return found.is_private or found in _SHARED

    def __str__(self) -> str:
        return f"{self.address} ({self.interface})"


@dataclass(frozen=True)
class HeadAddress:
    """Where a head is, as it was typed: a host and the number at which its ports begin."""

    host: str
    port: int = DEFAULT_BASE


def of_this_machine() -> tuple[InterfaceAddress, ...]:
    """The addresses of the interfaces that are up."""
    states = psutil.net_if_stats()
    return tuple(
        InterfaceAddress(interface, one.address.partition("%")[0])
        for interface, addresses in psutil.net_if_addrs().items()
        if interface not in states or states[interface].isup
        for one in addresses
        if one.family in (socket.AF_INET, socket.AF_INET6)
    )


def to_bind(asked: str | None, found: Sequence[InterfaceAddress]) -> str:
    """The address that a head binds: the one that was asked for, by itself or by its interface, or the only choice.

    Raises:
        ClusterError: there is no such address, or none or several to choose from; the message names them.
    """
    if asked is not None:
        return _asked_for(asked, found)
    choices = [one for one in found if one.is_choice]
    if not choices:
        raise ClusterError(
            "this machine has no address in a local network; connect it to one, or say which of its addresses to bind"
            + (f": {_named(found)}" if found else "")
        )
    if len(choices) > 1:
        raise ClusterError(f"this machine has several addresses, {_named(choices)}; say which one to bind")
    return choices[0].address


def parse(text: str) -> HeadAddress:
    """The address in HOST, HOST:PORT, [IPv6] or [IPv6]:PORT.

    Raises:
        ClusterError: it is none of these.
    """
    text = text.strip()
    with contextlib.suppress(ValueError):  # an IPv6 address without brackets
        return HeadAddress(str(ipaddress.IPv6Address(text)))
    if not (written := re.fullmatch(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\s\[\]:/@]+))(?::(?P<port>\d+))?", text)):
        raise ClusterError(f"{text!r} is not an address; write HOST or HOST:PORT, such as 192.168.1.10")
    if written["v6"]:
        try:
            host = str(ipaddress.IPv6Address(written["v6"]))
        except ValueError:
            raise ClusterError(f"{text!r} is not an address: {written['v6']} is not IPv6") from None
    else:
        host = written["host"]
    port = int(written["port"] or DEFAULT_BASE)
    if not 0 < port <= _HIGHEST_PORT:
        raise ClusterError(f"{text!r} is not an address: there is no port {port}")
    return HeadAddress(host, port)


def resolved(host: str) -> str:
    """The numeric address of a host; an IPv4 one where it has both.

    Raises:
        ClusterError: there is no host of that name.
    """
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClusterError(
            f"there is no host {host!r} ({reason}); type the address that the other laptop shows"
        ) from error
    answers.sort(key=lambda answer: answer[0] != socket.AF_INET)
    return str(answers[0][4][0])


def require_other(
    address: str, found: Sequence[InterfaceAddress], *, is_head_here: bool, typed: str | None = None
) -> None:
    """Raise `ClusterError` unless an address can lead to another machine; here, a head is or is not.

    Some addresses are on every machine (127.0.0.1, docker0's 172.17.0.1): typed elsewhere they do not lead to a head.
    `typed` is the name that was typed for it, if one was.
    """
    here = next((one for one in found if _same(one.address, address)), None)
    shown = "type the address that the other laptop shows"
    said = address if typed in (None, address) else f"{typed} ({address})"
    if is_of_one_link(address):
        raise ClusterError(f"{said} means something else on every link; {shown}")
    if ipaddress.ip_address(address).is_loopback:
        raise ClusterError(f"{said} is this machine itself; {shown}")
    if here is not None and is_head_here:
        raise ClusterError(f"{said} is this machine itself, with that cluster's head; join from the other laptop")
    if here is not None:
        raise ClusterError(f"{said} leads to this machine itself (its {here.interface}); {shown}")


def is_of_one_link(address: str) -> bool:
    """Whether an address is IPv6's `fe80::...`, which every interface has, and which needs one named to be used."""
    found = ipaddress.ip_address(address)
    return found.version == 6 and found.is_link_local


def with_port(host: str, port: int) -> str:
    """HOST:PORT, with the brackets of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def as_typed(host: str, port: int) -> str:
    """An address as somebody types it to join: without the port where that is the usual one."""
    return host if port == DEFAULT_BASE else with_port(host, port)


def _asked_for(asked: str, found: Sequence[InterfaceAddress]) -> str:
    found = [one for one in found if not is_of_one_link(one.address)]
    of_interface = [one for one in found if one.interface == asked]
    of_interface.sort(key=lambda one: ":" in one.address)
    if of_interface:
        return of_interface[0].address
    if any(_same(one.address, asked) for one in found):
        return asked
    raise ClusterError(f"this machine has no address or interface {asked}; it has {_named(found) or 'none'}")


def _named(addresses: Sequence[InterfaceAddress]) -> str:
    shown = [one for one in addresses if not ipaddress.ip_address(one.address).is_link_local]
    return ", ".join(map(str, shown))


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    return False
