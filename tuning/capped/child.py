"""The main program of a capped child: receive the call, import what it needs, run it, send the result."""

import contextlib
import json
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from tuning.capped.frames import ERROR, MESSAGE, VALUE, FrameReader, send_frame
from tuning.capped.out_of_memory import is_out_of_host_memory


def main() -> None:
    """Run the one call that arrives; never returns."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):  # the watchdog ignores them, which its children inherit
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    link, data = (socket.socket(fileno=int(sys.argv.pop())) for _ in range(2))
    start = threading.Event()
    threading.Thread(target=_follow_watchdog, args=(link, start), name="lifeline", daemon=True).start()
    try:
        kind, body = _run(data, link, start)
    except BaseException as error:
        _lift_memory_limit()  # describing the error takes some memory
        kind, body = ERROR, _described(error)
    with contextlib.suppress(OSError):  # the caller may be gone
        send_frame(data, kind, body)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None if it was closed from the start
            stream.flush()
    os._exit(0)  # so that nothing that a library left running can delay the answer


def _run(data: socket.socket, link: socket.socket, start: threading.Event) -> tuple[bytes, bytes]:
    sys.path, warm_up, call, sends_messages = pickle.loads(_receive_call(data))  # noqa: S301 - from our own caller
    if warm_up is not None:
        pickle.loads(warm_up)()  # noqa: S301
    function, args = pickle.loads(call)  # noqa: S301 - imports the function's module
    del call
    link.sendall(b"r")  # ready: the watchdog measures the floor and sets the limit
    start.wait()
    value = function(_sender(data), *args) if sends_messages else function(*args)
    try:
        return VALUE, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"the value, a {type(value).__qualname__}, cannot be pickled: {error}") from error


def _receive_call(data: socket.socket) -> bytes:
    frames = FrameReader()
    while piece := data.recv(1 << 20):
        for _, body in frames.feed(piece):
            return body
    raise EOFError("the caller is gone")


def _sender(data: socket.socket) -> Callable[[object], None]:
    owner, lock = os.getpid(), threading.Lock()

    def send(message: object) -> None:
        """Send a message to the caller's `on_message`; blocks while the caller is busy with earlier ones."""
        if os.getpid() != owner:
            raise RuntimeError("only the process that runs the function can send messages, not a fork of it")
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with lock:
            send_frame(data, MESSAGE, body)

    return send


def _follow_watchdog(link: socket.socket, start: threading.Event) -> None:
    """Wait for the watchdog's start signal, then for its end, which ends this process too.

    Normally the watchdog ends the whole tree; this is for a watchdog that is itself killed. PR_SET_PDEATHSIG would
    not do: it ends this process alone, and nobody would be left to end its children.
    """
    with contextlib.suppress(OSError):
        while link.recv(1):
            start.set()
    try:
        _lift_memory_limit()
        import psutil

        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
    finally:
        os.killpg(os.getpid(), signal.SIGKILL)


def _described(error: BaseException) -> bytes:
    frame = error.__traceback__
    while frame and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next  # skip our own frames: the function's author wants to see theirs
    described = {
        "error": "".join(traceback.format_exception_only(error)).strip(),
        "traceback": "".join(traceback.format_exception(type(error), error, frame)),
        "out_of_memory": any(is_out_of_host_memory(each) for each in _chain(error)),
    }
    return json.dumps(described).encode()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _lift_memory_limit() -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
