"""A Ray cluster that an address names: check it, join it, see its nodes."""

import contextlib
import json
import logging
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tuning.capacity import Node
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.connection import (
    PATIENCE,
    START_S,
    TUNE_ENVIRONMENT,
    environment,
    first_line,
    import_ray,
    quiet_loggers,
    shut_down,
    signal_handlers_restored,
    token_in_force,
)
from tuning.waiting import ASK_S, Helper, is_anything_stuck, result_of

_CONNECT_S = 3.0
_DRIVER = {"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor", **PATIENCE}
_ANSWER_S = 10.0
_ASK_HEAD = """
import sys
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_get(b"CLUSTER_METADATA", KV_NAMESPACE_CLUSTER, timeout=3).decode())
"""


@contextmanager
def joined(address: str, should_stop: Callable[[], bool] = lambda: False, token: str | None = None) -> Iterator[None]:
    """The cluster at `address`, which this machine must be a node of; it is left as it was found.

    Without `token` the one in Ray's own environment variables counts.

    Raises:
        ClusterError: it does not answer, or not in time, or this machine cannot use it.
        AskedToLeaveError: `should_stop` returned True meanwhile.
    """
    with (
        environment(_DRIVER),
        contextlib.nullcontext() if token is None else token_in_force(token),
        _joined(address, should_stop),
    ):
        yield


@contextmanager
def _joined(address: str, should_stop: Callable[[], bool]) -> Iterator[None]:
    ray = import_ray()
    check(address, should_stop)
    join = partial(ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    with Helper("ray") as helper, quiet_loggers(), environment(TUNE_ENVIRONMENT | {"RAY_DEDUP_LOGS": "0"}):
        try:
            # in an empty folder: see `import_ray`
            with signal_handlers_restored(), tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
                result_of(helper.begin(join), START_S, should_stop)
        except AskedToLeaveError:
            raise
        except Exception as error:
            raise ClusterError(
                f"the Ray cluster at {address} cannot be used from this machine: {first_line(error)}; "
                "start a node of it here first"
            ) from error
        try:
            yield
        finally:
            if not is_anything_stuck():  # for what is stuck then, Ray would start another one
                shut_down(helper)


def check(address: str, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Raise `ClusterError`, within seconds, unless a cluster answers that this process can work with."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # of IPv6
    if not host or not port.isdecimal():
        raise ClusterError(
            f"{address!r} is not an address of a Ray cluster; write HOST:PORT, such as 192.168.1.10:6379"
        )
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({first_line(error)}); is its head running?"
        ) from error
    theirs = _versions(address, should_stop)
    here = {"ray": import_ray().__version__, "python": _minor(platform.python_version())}
    there = {"ray": theirs.get("ray_version"), "python": _minor(str(theirs.get("python_version")))}
    differing = [name for name in here if there[name] != here[name]]
    if differing:
        versions = ", ".join(f"{name} {there[name]} there, {here[name]} here" for name in differing)
        raise ClusterError(
            f"the Ray cluster at {address} runs other versions ({versions}); install the same on both sides"
        )


def nodes() -> list[Node]:
    """The live nodes of the connected Ray that have cores and memory to give."""
    found = []
    for node in import_ray().nodes():
        resources: Mapping[str, float] = node["Resources"]
        if node["Alive"] and resources.get("CPU") and resources.get("memory"):
            memory_mb = int(resources["memory"] / 1_000_000)
            found.append(Node(_name(node), resources["CPU"], memory_mb, node["NodeID"]))
    return found


def _minor(python: str) -> str:
    """3.12 of 3.12.3: two laptops seldom have the same patch."""
    return ".".join(python.split(".")[:2])


def _name(node: Mapping[str, Any]) -> str:
    """What the node was named at its start; Ray itself names it by its address, for which its host's name stands."""
    name = str(node.get("NodeName") or "")
    return str(node["NodeManagerHostname"]) if name in ("", node.get("NodeManagerAddress")) else name


def _versions(address: str, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """What the head of the cluster reports about itself.

    `GcsClient` is private to Ray, but answers within 10 ms where the public way takes 21 s and a traceback. It runs
    in a process of its own, since it waits 40 s for a server that is not Ray, and has no time limit of its own.
    """
    command = [sys.executable, "-P", "-c", _ASK_HEAD, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asking:
        until = time.monotonic() + _ANSWER_S
        try:
            while asking.poll() is None and time.monotonic() < until:
                if should_stop():
                    raise AskedToLeaveError
                time.sleep(ASK_S)
        finally:
            asking.kill()
        assert asking.stdout is not None
        try:
            return dict(json.loads(asking.stdout.read()))
        except ValueError as error:
            raise ClusterError(
                f"what answers at {address} is no Ray cluster that lets this process in; check the address and the "
                "token"
            ) from error
