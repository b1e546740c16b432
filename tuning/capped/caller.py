"""The caller's side of a capped call: start the watchdog, send the call, receive messages, ask for a stop."""

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from tuning.capped.frames import CALL, MESSAGE, FrameReader, send_frame
from tuning.capped.watchdog import Ending, WatchOptions

_WATCHDOG = "import sys; sys.path.append(sys.argv.pop(1)); from tuning.capped.watchdog import main; main()"
_ASK_EVERY_S = 0.05
_RECEIVE_BYTES = 1 << 20
_GIVE_UP_S = 15.0
_START_S = 30.0


class CappedCall:
    """A watchdog and its child, and this process' ends of the sockets to them; leaving the context ends both.

    Attributes:
        last_frame: the last frame from the child, a value or an error, if one came.
        stop_reason: why the child was asked to stop, if it was.
    """

    def __init__(
        self, cap_mb: float, time_limit_s: float, grace_s: float, output: Path | None, *, floor_only: bool = False
    ) -> None:
        self._control, control = socket.socketpair()
        self._data, data = socket.socketpair()
        self.last_frame: tuple[bytes, bytes] | None = None
        self.stop_reason: str | None = None
        self._ending_json = b""
        with control, data:
            options = WatchOptions(
                cap_mb=cap_mb,
                time_limit_s=time_limit_s,
                grace_s=grace_s,
                output=None if output is None else str(output.absolute()),
                floor_only=floor_only,
                control_fd=control.fileno(),
                data_fd=data.fileno(),
            )
            # -S: without `site` and its hooks, which the watchdog does not need; the child has them.
            lean = ["-S"] if sys.platform == "linux" else []  # elsewhere the watchdog needs psutil
            command = [sys.executable, "-P", *lean, "-c", _WATCHDOG, str(Path(__file__).parents[2])]
            subprocess.run(  # returns at once: the watchdog forks away and is no child of this process
                [*command, json.dumps(options._asdict())],
                stdin=subprocess.DEVNULL,
                env=os.environ.copy(),  # else the new process reads what another thread (Ray's start) may be changing
                pass_fds=(control.fileno(), data.fileno()),
                start_new_session=True,  # Ctrl-C is for the caller
                check=True,
                timeout=_START_S,  # of a process that takes 20 ms: for a disk that does not answer
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        with self._control as control, contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_WR)  # makes the watchdog end whatever is left, then itself
            control.settimeout(_GIVE_UP_S)
            while _receive(control):
                pass

    @property
    def ending(self) -> Ending:
        """How the child ended, once it has."""
        if self._ending_json:
            return Ending(**json.loads(self._ending_json))
        return Ending(reason=None, status=-signal.SIGKILL, floor_mb=None, peak_mb=0.0)  # the watchdog was killed

    def send(self, call: bytes) -> None:
        """Send the child its call."""
        with contextlib.suppress(ConnectionError):  # it ended before it received the call; `ending` says how
            send_frame(self._data, CALL, call)

    def kill(self, reason: str) -> None:
        """End the child and everything that it started, now; any thread may call this, and at any time."""
        self.stop_reason = self.stop_reason or reason
        with contextlib.suppress(OSError):  # the call is over
            self._control.shutdown(socket.SHUT_WR)

    def listen(self, on_message: Callable[[object], None], should_stop: Callable[[], str | None] | None) -> None:
        """Pass messages on, and a request to stop, until the child and everything that it started are gone."""
        frames = FrameReader()
        open_ends = [self._data, self._control]
        ask_at = time.monotonic()
        while True:
            asks = should_stop is not None and self.stop_reason is None
            readable, _, _ = select.select(open_ends, [], [], max(ask_at - time.monotonic(), 0) if asks else None)
            # Data first: what the child sent comes before its ending, so no message is lost.
            if self._data in readable:
                piece = _receive(self._data)
                if not piece:
                    open_ends.remove(self._data)
                for kind, body in frames.feed(piece):
                    self._take(kind, body, on_message)
            elif self._control in readable:
                piece = _receive(self._control)
                if not piece:
                    break
                self._ending_json += piece
            if asks and should_stop is not None and time.monotonic() >= ask_at:
                ask_at = time.monotonic() + _ASK_EVERY_S
                self._stop_for(should_stop())
        if not self._ending_json:
            self._wait_for_orphan()

    def _take(self, kind: bytes, body: bytes, on_message: Callable[[object], None]) -> None:
        if kind == MESSAGE:
            on_message(pickle.loads(body))  # noqa: S301 - from the process that this one started
        else:
            self.last_frame = kind, body

    def _stop_for(self, reason: str | None) -> None:
        if reason is not None:
            self.stop_reason = self.stop_reason or reason
            with contextlib.suppress(ConnectionError):
                self._control.sendall(b"s")

    def _wait_for_orphan(self) -> None:
        """Wait for a child whose watchdog was killed: it notices, and ends."""
        self._data.settimeout(_GIVE_UP_S)
        with contextlib.suppress(TimeoutError):
            while _receive(self._data):
                pass


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        """Refuse here what the child could not import, so that the caller sees why."""
        if isinstance(thing, (types.FunctionType, type)) and thing.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{thing.__qualname__} is defined in the script that was started, which a child cannot import"
            )
        return NotImplemented


def pickled_call(function: Callable[..., object], args: tuple[object, ...], warm_up: object, sends: bool) -> bytes:
    """What a child needs to make the call; `sends`: the function takes a `Send` first.

    Raises:
        ValueError: a part of it cannot be pickled, or not be imported by another process.
    """
    try:
        parts = [None if part is None else _pickled(part) for part in (warm_up, (function, args))]
    except Exception as error:  # pickling runs anyone's __reduce__
        name = getattr(function, "__qualname__", repr(function))
        raise ValueError(
            f"{name} and its arguments cannot be sent to a process of their own: {error}. "
            "The function must be at the top level of a module that can be imported, its arguments picklable."
        ) from error
    return pickle.dumps((sys.path, *parts, sends), pickle.HIGHEST_PROTOCOL)


def _pickled(thing: object) -> bytes:
    buffer = BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(thing)
    return buffer.getvalue()


def _receive(end: socket.socket) -> bytes:
    """The next bytes; none at the end of the stream."""
    try:
        return end.recv(_RECEIVE_BYTES)
    except ConnectionError:
        return b""
