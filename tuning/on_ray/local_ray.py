"""A small Ray of the search's own on this machine."""

import contextlib
import logging
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tuning import loopback
from tuning.capacity import Node
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.cleanup import MARK, Cleanup
from tuning.on_ray.connection import (
    START_S,
    TUNE_ENVIRONMENT,
    environment,
    first_line,
    import_ray,
    quiet_loggers,
    reload_token,
    shut_down,
    signal_handlers_restored,
)
from tuning.waiting import Helper, result_of

OBJECT_STORE_BYTES = 80_000_000
_LONGEST_TEMP = 24  # Ray adds up to 70 characters, and the path of a unix socket may have 107
LEAN = {
    "RAY_memory_monitor_refresh_ms": "0",  # its out-of-memory error leaves Tuner.fit() and ends the search
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "PYTHONSAFEPATH": "1",  # its servers import nothing from the folder that they are started in
}
"""What every Ray of ours is started with."""


@contextmanager
def started(node: Node, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A local Ray with that much to give; all of it is gone afterwards, however the search ends.

    Raises:
        ClusterError: it did not start, or not in time.
        AskedToLeaveError: `should_stop` returned True while it started.
    """
    require_loopback()
    import_ray()
    mark, folder = secrets.token_hex(16), tempfile.mkdtemp(prefix="ray-", dir=short_temp())
    with Cleanup(mark, folder), Helper("ray") as helper, quiet_loggers():
        try:
            with signal_handlers_restored():
                result_of(helper.begin(partial(_start, node, folder, mark)), START_S, should_stop)
        except TimeoutError as error:
            raise ClusterError(
                f"a local Ray did not start within {START_S:.0f} s; close other programs, let firewall and VPN allow "
                f"{loopback.HOST}, and run the same command again"
            ) from error
        except AskedToLeaveError:
            raise
        except Exception as error:
            raise ClusterError(f"a local Ray could not be started: {first_line(error)}") from error
        try:
            with environment(TUNE_ENVIRONMENT):
                yield
        finally:
            shut_down(helper)
            reload_token()


def require_loopback() -> None:
    """Raise `ClusterError`, within seconds, if a local Ray could not reach itself on this machine."""
    try:
        loopback.check()
    except OSError as error:
        raise ClusterError(
            f"this machine does not reach itself over {loopback.HOST} ({first_line(error)}), which Ray needs; "
            "let the firewall or the VPN allow it, or bring the loopback interface up"
        ) from error


def _start(node: Node, folder: str, mark: str) -> None:
    values = LEAN | TUNE_ENVIRONMENT | {MARK: mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": mark}
    with environment(values), hangups_blocked(), contextlib.chdir(folder):  # the folder: see `import_ray`
        reload_token()
        with _on_loopback():
            import_ray().init(
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


@contextmanager
def hangups_blocked() -> Iterator[None]:
    """Block SIGHUP in this thread, and so in every process that it starts.

    A terminal that closes sends SIGHUP to everything that was started in it, but trials have to save before Ray ends;
    the caller is the one to end them. (Ray itself protects its processes from Ctrl-C.)
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray use the loopback address, as on a Mac; elsewhere it chooses an outward one, maybe a VPN's."""
    from ray._private import ray_constants

    previous = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # this process has read the variable already; Ray's servers will
    try:
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = previous


def short_temp() -> str:
    """A folder for temporary files whose path leaves room for Ray's."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _LONGEST_TEMP else "/tmp"
