"""What runs in a capped child: take the call, import what it needs, wait for the word, run it, send what came of it.

Frames on the data socket: one byte of kind, eight of length, the body. To the child comes a single one, the call
(pickled). From it come messages and at most one last frame, a value (pickled) or an error (JSON).
"""

import contextlib
import errno
import json
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

CALL, MESSAGE, VALUE, ERROR = b"c", b"m", b"v", b"e"
HEADER = struct.Struct("!cQ")

# What native allocators say. A graphics card's memory is another matter, and no cap of ours.
_REFUSED = ("cannot allocate memory", "can't allocate memory", "not enough memory", "std::bad_alloc", "out_of_memory")
_OF_A_CARD = ("CUDA", "MPS", "HIP", "XPU")


class Frames:
    """Frames from a stream of bytes that arrives in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The kind and body of each frame that this piece completes."""
        self._held += piece
        while len(self._held) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._held)
            if len(self._held) < HEADER.size + length:
                return
            body = bytes(memoryview(self._held)[HEADER.size : HEADER.size + length])
            del self._held[: HEADER.size + length]
            yield kind, body


def send_frame(end: socket.socket, kind: bytes, body: bytes) -> None:
    """Send one frame; waits while the other side does not read."""
    end.sendall(HEADER.pack(kind, len(body)))
    end.sendall(body)


def main() -> None:
    """Run the one call that arrives; never returns."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):  # which the warden ignores, and so its children too
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    link, data = (socket.socket(fileno=int(sys.argv.pop())) for _ in range(2))
    begin = threading.Event()
    threading.Thread(target=_leave_with, args=(link, begin), name="lifeline", daemon=True).start()
    try:
        kind, body = _run(data, link, begin)
    except BaseException as error:
        _lift_the_limit()  # to say what happened takes some memory
        kind, body = ERROR, _told(error)
    with contextlib.suppress(OSError):  # the caller may be gone
        send_frame(data, kind, body)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None where it was closed from the start
            stream.flush()
    os._exit(0)  # nothing that a library has left running can hold the answer back


def _run(data: socket.socket, link: socket.socket, begin: threading.Event) -> tuple[bytes, bytes]:
    sys.path, warm_up, call, reports = pickle.loads(_arrived(data))  # noqa: S301 - from the process that started this
    if warm_up is not None:
        pickle.loads(warm_up)()  # noqa: S301
    function, args = pickle.loads(call)  # noqa: S301 - imports the function's module
    del call
    link.sendall(b"r")
    begin.wait()
    value = function(_sender(data), *args) if reports else function(*args)
    try:
        return VALUE, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"the value, a {type(value).__qualname__}, cannot be pickled: {error}") from error


def _arrived(data: socket.socket) -> bytes:
    frames = Frames()
    while piece := data.recv(1 << 20):
        for _, body in frames.feed(piece):
            return body
    raise EOFError("the caller is gone")


def _sender(data: socket.socket) -> Callable[[object], None]:
    owner, lock = os.getpid(), threading.Lock()

    def send(message: object) -> None:
        """Hand a message to the caller's `on_message`; waits while the caller is busy with earlier ones."""
        if os.getpid() != owner:
            raise RuntimeError(
                "only the process that runs the function can send messages, not one that it has forked"
            )
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with lock:
            send_frame(data, MESSAGE, body)

    return send


def _leave_with(link: socket.socket, begin: threading.Event) -> None:
    """Wait for the warden's word, then for its end, which is ours.

    It ends its children first, and so does everything below; this is for the day it is itself killed. Not
    PR_SET_PDEATHSIG, which would end this process alone, and leave no one to end those below it.
    """
    with contextlib.suppress(OSError):
        while link.recv(1):
            begin.set()
    try:
        _lift_the_limit()
        import psutil

        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
    finally:
        os.killpg(os.getpid(), signal.SIGKILL)


def _told(error: BaseException) -> bytes:
    began = error.__traceback__
    while began and began.tb_frame.f_code.co_filename == __file__:
        began = began.tb_next  # the function's own frames are what its author wants to see
    text = "".join(traceback.format_exception(type(error), error, began))
    told = {
        "error": "".join(traceback.format_exception_only(error)).strip(),
        "traceback": text,
        "out_of_memory": any(_is_refused(each) for each in _chain(error)),
    }
    return json.dumps(told).encode()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_refused(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and not text.startswith(_OF_A_CARD)
        and any(words in text.lower() for words in _REFUSED)
    )


def _lift_the_limit() -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
