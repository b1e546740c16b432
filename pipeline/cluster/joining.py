"""Joining a cluster: find its head, compare the two laptops, then be a node of it until asked to leave."""

import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster import node_here, this_laptop
from pipeline.errors import ConfigError, MachineUnfitError
from pipeline.stop import StopToken
from tuning.cluster import addresses, comparison, ports, route, versions
from tuning.cluster.addresses import HeadAddress
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_record import NodeRecord
from tuning.cluster.ports import Ports

if TYPE_CHECKING:
    from tuning.cluster.node_events import NodeEvent
    from tuning.on_ray.node_plan import NodePlan

CODE_VARIABLE = "SEQPIPE_JOIN_CODE"


@dataclass(frozen=True)
class Asked:
    """What a user said about the node to join with."""

    name: str | None = None
    port: int | None = None
    reserve_mb: int | None = None


@dataclass(frozen=True)
class Comparison:
    """This laptop beside the head."""

    here: NodeRecord
    head: NodeRecord
    lines: tuple[comparison.Line, ...]


@dataclass(frozen=True)
class Way:
    """The way between this laptop and the head."""

    own_address: str
    clock_off_s: float
    """How far the head's clock is ahead."""
    reach: comparison.Reach


def head_address(text: str) -> HeadAddress:
    """The head that an address, as typed, leads to; with its numeric address.

    Raises:
        ClusterError: it is no address, nobody has it, or this laptop has it itself.
    """
    typed = addresses.parse(text)
    numeric = addresses.resolved(typed.host)
    here = node_here.find()
    is_head_here = here is not None and here.kind == "head"
    addresses.require_other(numeric, addresses.of_this_machine(), is_head_here=is_head_here, typed=typed.host)
    return HeadAddress(numeric, typed.port)


def given_code(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The join code of a file, or else of the environment; None if it has to be asked for.

    Raises:
        ConfigError: the file cannot be read, or others may read it.
    """
    if file is None:
        return environ.get(CODE_VARIABLE)
    try:
        with file.expanduser().open(encoding="utf-8") as opened:
            found = os.fstat(opened.fileno())
            if found.st_mode & 0o077 and stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{file}: others may read the join code in it; make it 0600: `chmod 600 {file}`")
            return opened.read(1000)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def require_head(address: HeadAddress, code: JoinCode) -> NodeRecord:
    """What the head at an address says of itself; in 2 s.

    Raises:
        MachineUnfitError: nobody answers, or no head, or one that refuses the code.
    """
    from tuning.on_ray import probe

    where = addresses.with_port(address.host, address.port)
    match probe.ask(where, code.token):
        case probe.Head(record=record):
            return record
        case probe.WrongToken():
            raise MachineUnfitError(
                f"the head at {where} refuses this join code; type the one that `seqpipe cluster up` shows there now"
            )
        case probe.NotAHead(what=what):
            other = versions.of_this_machine(this_laptop.PACKAGES).digest != code.digest
            why = " (the join code is from a laptop with another Python, Ray or seqpipe)" if other else ""
            raise MachineUnfitError(
                f"at {where} there is {what}{why}; type the line that `seqpipe cluster up` shows on the other laptop"
            )
        case probe.Nothing(why=why):
            raise MachineUnfitError(
                f"nobody answers at {where} ({why}); is the cluster up there, and does its firewall let ports "
                f"{Ports(address.port).in_words()} in?"
            )


def tried(wanted: Ports, address: HeadAddress, code: JoinCode) -> Way:
    """Try what the two laptops reach of each other, which takes a second: the head calls back.

    Raises:
        MachineUnfitError: a port of this laptop is taken, or there is no way to the head.
        ClusterError: the head does not answer any more.
    """
    from tuning.on_ray.board import Board
    from tuning.on_ray.reach import reached

    this_laptop.require_free(wanted, is_head=False)
    own = route.address_towards(address.host, address.port)
    if own is None:
        raise MachineUnfitError(f"there is no way to {address.host} any more; is this laptop still in its network?")
    with Board(addresses.with_port(address.host, address.port), code.token) as board:
        back = reached(board, own, wanted.all(is_head=False))
    theirs = Ports(address.port)
    there = (theirs.gcs, theirs.node_manager, theirs.object_manager)
    blocked = tuple(port for port in there if not ports.can_connect(address.host, port))
    return Way(own, back.clock_off_s, comparison.Reach(blocked, back.unreachable))


def compared(plan: "NodePlan", way: Way, head: NodeRecord) -> Comparison:
    """Compare this laptop with the head."""
    here = this_laptop.record(plan, way.own_address)
    lines = comparison.compare(
        here, head, clock_off_s=way.clock_off_s, disk_free_mb=this_laptop.disk_free_mb(), reach=way.reach
    )
    return Comparison(here, head, lines)


def join(
    address: HeadAddress,
    code: JoinCode,
    asked: Asked,
    facts: this_laptop.Facts,
    on_compared: Callable[[Comparison], None],
    on_event: "Callable[[NodeEvent], None]",
    stop_token: StopToken,
) -> str:
    """Be a node of the head's cluster until a signal, or it is told to leave; `on_compared` is called first.

    Returns:
        Why it left.

    Raises:
        MachineUnfitError: this laptop is in a cluster already, or does not fit this one.
        ClusterError: ports are taken, the head does not answer any more, or Ray does not run.
        CapDoesNotFitError: the reserve is more than the laptop has.
    """
    from tuning.on_ray import member

    with node_here.only_one("member", addresses.as_typed(address.host, address.port)):
        head = require_head(address, code)
        chosen = Ports(asked.port or ports.DEFAULT_BASE)
        way = tried(chosen, address, code)  # while the child of `facts` loads torch
        plan = this_laptop.plan(asked.name or socket.gethostname(), chosen, asked.reserve_mb, facts.result())
        found = compared(plan, way, head)
        on_compared(found)
        if refused := comparison.refused(found.lines):
            what = ", ".join(line.what for line in refused)
            raise MachineUnfitError(f"this laptop does not fit the cluster ({what}): see the table for what to do")
        where = addresses.with_port(address.host, address.port)
        with stop_token.deferring():
            return member.run(plan, where, code, on_event, lambda: stop_token.reason() is not None)
