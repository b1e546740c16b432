"""What starting a Ray and joining a cluster share: the import, Ray's settings, the caller's signals, leaving it."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuning.waiting import Helper, result_of

START_S = 30.0
_STOP_S = 10.0
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even if told to print nothing
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the caller's handlers stay in force
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # trials start side by side; the search decides how many
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's state is never restored
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}

PATIENCE: Mapping[str, str] = {
    # For Wi-Fi. The head gives a node up after five checks without an answer, 1 s apart. One that is silent, since it
    # sleeps or its cable is out, makes each check wait 11 s: it has 60 s. One whose processes were killed refuses the
    # connection, which is known after 5 s (15 with Ray's own 3 s between checks).
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "11000",
    "RAY_health_check_failure_threshold": "5",
    # The same seen from the other end: a node's processes wait so long for the head before they end themselves.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
    # A connection whose packets vanish lives for 60 s, not 20: after 25 s TCP may try again only at 51 s, and
    # a call that was broken off meanwhile would end its trial.
    "RAY_grpc_keepalive_timeout_ms": "60000",
}
"""Settings of every process of a cluster, the driver's included."""


def import_ray() -> Any:
    """Ray, kept from giving the working folder to its workers.

    Under `uv run` it would pack the folder and run them in a copy; that is decided when Ray is imported, as is that
    no call starts a Ray by itself. It also puts the folder first on their module path, so `ray.init` has to be called
    in a folder without modules.
    """
    with environment({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}):
        import ray
    return ray


def shut_down(helper: Helper) -> None:
    """Disconnect from Ray, in bounded time; `cleanup` ends what a local Ray does not end by then."""
    with contextlib.suppress(TimeoutError):
        result_of(helper.begin(import_ray().shutdown), _STOP_S)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables set for the time of a block."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def token_in_force(token: str) -> Iterator[None]:
    """Have this process show `token` to every Ray that it talks to; afterwards what counted before does again."""
    try:
        with environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}):
            reload_token()
            yield
    finally:
        reload_token()


def reload_token() -> None:
    """Have Ray read its mode and token again: it does so once, at its import."""
    import_ray()
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def signal_handlers_restored() -> Iterator[None]:
    """Put the caller's signal handlers back: Ray replaces that of SIGTERM when it starts, in Python and in C++."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Silence Ray's own loggers: they say nothing that a user of the search could act on."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
