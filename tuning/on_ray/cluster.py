"""Ray for one search: a small local one, or the cluster that an address names."""

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tuning import loopback
from tuning.capacity import Node
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.cleanup import MARK, Reaper
from tuning.waiting import ASK_S, Helper, result_of

OBJECT_STORE_BYTES = 80_000_000
START_S = 30.0
_STOP_S = 10.0
_CONNECT_S = 3.0
_ANSWER_S = 10.0
_ASK_HEAD = """
import sys
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_get(b"CLUSTER_METADATA", KV_NAMESPACE_CLUSTER, timeout=3).decode())
"""
_LONGEST_TEMP = 24  # Ray adds up to 70 characters, and a unix socket's path may have 107
_QUIET = {
    "RAY_memory_monitor_refresh_ms": "0",  # its out-of-memory error leaves Tuner.fit() and ends the search
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "PYTHONSAFEPATH": "1",  # its servers import nothing from the folder that they are started in
}
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when told to print nothing
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the caller's handlers stay in force
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # trials start side by side; how many, the search itself decides
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # its state is never restored
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}


@contextmanager
def local(node: Node, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A Ray of this search's own on this machine; all of it is gone afterwards, however the search ends.

    Raises:
        ClusterError: it did not start, in time or at all.
        AskedToLeaveError: `should_stop` said so while it started.
    """
    require_loopback()
    ray = _import_ray()
    mark = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="ray-", dir=_short_temp())
    environment = _QUIET | TUNE_ENVIRONMENT | {MARK: mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": mark}

    def start() -> None:
        with _environment(environment), _deaf_to_hangups(), contextlib.chdir(folder):  # see `_import_ray`
            _read_token_anew()
            with _on_loopback():
                ray.init(
                    address="local",
                    num_cpus=int(node.cpus),
                    num_gpus=0,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _memory=node.memory_mb * 1_000_000,
                    _temp_dir=folder,
                )

    with Reaper(mark, folder), Helper("ray") as helper, _quietly():
        try:
            with _own_signals():
                result_of(helper.begin(start), START_S, should_stop)
        except TimeoutError as error:
            raise ClusterError(
                f"a local Ray did not start within {START_S:.0f} s; close other programs, let firewall and VPN allow "
                f"{loopback.HOST}, and run the same command again"
            ) from error
        except AskedToLeaveError:
            raise
        except Exception as error:
            raise ClusterError(f"a local Ray could not be started: {_first_line(error)}") from error
        try:
            with _environment(TUNE_ENVIRONMENT):
                yield
        finally:
            _shut_down(helper)
            _read_token_anew()


def require_loopback() -> None:
    """Raise `ClusterError`, in seconds, where a Ray of this machine's own could not talk to itself."""
    try:
        loopback.check()
    except OSError as error:
        raise ClusterError(
            f"this machine does not reach itself over {loopback.HOST} ({_first_line(error)}), which Ray needs; "
            "let the firewall or the VPN allow it, or bring the loopback interface up"
        ) from error


@contextmanager
def joined(address: str, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """The cluster at `address`, which this machine must be a node of; it is left as it was found.

    Raises:
        ClusterError: it does not answer, in time or at all, or is none that this machine can use.
        AskedToLeaveError: `should_stop` said so meanwhile.
    """
    ray = _import_ray()
    check(address, should_stop)
    join = partial(ray.init, address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    with Helper("ray") as helper, _quietly(), _environment(TUNE_ENVIRONMENT | {"RAY_DEDUP_LOGS": "0"}):
        try:
            with _own_signals(), tempfile.TemporaryDirectory() as nowhere, contextlib.chdir(nowhere):
                result_of(helper.begin(join), START_S, should_stop)
        except AskedToLeaveError:
            raise
        except Exception as error:
            raise ClusterError(
                f"the Ray cluster at {address} cannot be used from this machine: {_first_line(error)}; "
                "start a node of it here first"
            ) from error
        try:
            yield
        finally:
            _shut_down(helper)


def check(address: str, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Raise `ClusterError`, in seconds, where no cluster answers that this process could work with."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is no address of a Ray cluster; write HOST:PORT, such as 192.168.1.10:6379")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({_first_line(error)}); is its head running?"
        ) from error
    theirs = _versions(address, should_stop)
    ray = _import_ray()
    ours = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    if differing:
        told = ", ".join(
            f"{name.removesuffix('_version')} {theirs.get(name)} there, {ours[name]} here" for name in differing
        )
        raise ClusterError(
            f"the Ray cluster at {address} runs other versions ({told}); install the same on both sides"
        )


def nodes() -> list[Node]:
    """The live nodes of the connected cluster that have cores and memory to give."""
    import ray

    found = []
    for node in ray.nodes():
        resources: Mapping[str, float] = node["Resources"]
        if node["Alive"] and resources.get("CPU") and resources.get("memory"):
            found.append(Node(node["NodeManagerHostname"], resources["CPU"], int(resources["memory"] / 1_000_000)))
    return found


def _import_ray() -> Any:
    """Ray, which would hand the working folder to its workers in two ways.

    Under `uv run` it packs the folder and runs them in a copy; that is switched off when Ray is imported. And it puts
    the folder in front of their module path; so `ray.init` is called from a folder of no modules.
    """
    with _environment({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}):
        import ray
    return ray


def _shut_down(helper: Helper) -> None:
    """Leave Ray; what a Ray of our own does not end in time is ended by the reaper."""
    import ray

    with contextlib.suppress(TimeoutError):
        result_of(helper.begin(ray.shutdown), _STOP_S)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's own choice is the address that leads out, a VPN's maybe; on a Mac, the loopback's."""
    from ray._private import ray_constants

    kept = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # Ray has read the variable at its import; what it starts has not yet
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


def _read_token_anew() -> None:
    """Ray reads its mode and token once in a process, at the latest when it is imported; ours are for one search."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _versions(address: str, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """What the head says of itself.

    `GcsClient` is Ray's own business, but says in 10 ms what else takes 21 s and a traceback. In a process of its
    own, for it waits 40 s for a server that is no Ray, and cannot be hurried.
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


def _short_temp() -> str:
    found = tempfile.gettempdir()
    return found if len(found) <= _LONGEST_TEMP else "/tmp"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over while it starts, in Python and below it; the caller's handlers are put back.

    A terminal that closes sends SIGHUP to all that was started in it. What Ray starts is not to hear it (of Ctrl-C it
    sees to that itself): trials have to be able to save, and the caller is the one to end them.
    """
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # which children inherit
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    """What this thread starts does not hear that the terminal was closed: trials are to save before Ray ends.

    The signal goes to every process in the terminal's foreground. (Of Ctrl-C, Ray sees to that itself.)
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # which children inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _quietly() -> Iterator[None]:
    """Ray's own loggers say nothing that a user of the search could act on."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
