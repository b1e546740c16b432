"""The caller's side of a guarded child: start the warden, hand over the call, hear what comes back."""

import contextlib
import json
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

from tuning.capped.child import CALL, MESSAGE, Frames, send_frame
from tuning.capped.watchdog import Orders, Verdict

_WARDEN = "import sys; sys.path.append(sys.argv.pop(1)); from tuning.capped.watchdog import main; main()"
_ASK_EVERY_S = 0.05
_PIECE = 1 << 20
_GIVE_UP_S = 15.0
_START_S = 30.0


class Guarded:
    """A warden and its child, and this process' ends of the sockets to them; leaving the context ends both.

    Attributes:
        last: the last frame from the child, a value or an error, if it came.
        stop_reason: why it was asked to stop, if it was.
    """

    def __init__(
        self, cap_mb: float, time_limit_s: float, grace_s: float, output: Path | None, *, floor_only: bool = False
    ) -> None:
        self._control, control = socket.socketpair()
        self._data, data = socket.socketpair()
        self.last: tuple[bytes, bytes] | None = None
        self.stop_reason: str | None = None
        self._told = b""
        with control, data:
            orders = Orders(
                cap_mb=cap_mb,
                time_limit_s=time_limit_s,
                grace_s=grace_s,
                output=None if output is None else str(output.absolute()),
                floor_only=floor_only,
                control_fd=control.fileno(),
                data_fd=data.fileno(),
            )
            # -S: without `site` and what hooks into it, which the warden does not need and the child has.
            lean = ["-S"] if sys.platform == "linux" else []  # elsewhere it needs psutil
            command = [sys.executable, "-P", *lean, "-c", _WARDEN, str(Path(__file__).parents[2])]
            subprocess.run(  # which leaves the warden behind, no child of this process
                [*command, json.dumps(orders._asdict())],
                stdin=subprocess.DEVNULL,
                pass_fds=(control.fileno(), data.fileno()),
                start_new_session=True,  # Ctrl-C is the caller's to hear
                check=True,
                timeout=_START_S,  # of a process that takes 20 ms: a disk that does not answer
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        with self._control as control, contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_WR)  # at which the warden ends everything that is left, then itself
            control.settimeout(_GIVE_UP_S)
            while _received(control):
                pass

    @property
    def verdict(self) -> Verdict:
        """How it ended, after the end."""
        if self._told:
            return Verdict(**json.loads(self._told))
        return Verdict(why=None, status=-signal.SIGKILL, floor_mb=None, peak_mb=0.0)  # the warden was killed

    def begin(self, call: bytes) -> None:
        """Hand the child its call."""
        with contextlib.suppress(ConnectionError):  # it ended before it took it; the verdict tells
            send_frame(self._data, CALL, call)

    def converse(self, on_message: Callable[[object], None], should_stop: Callable[[], str | None] | None) -> None:
        """Hear the child until it and all that it has started are gone."""
        frames = Frames()
        listening = [self._data, self._control]
        ask_at = time.monotonic()
        while listening:
            asking = should_stop is not None and self.stop_reason is None
            readable, _, _ = select.select(listening, [], [], max(ask_at - time.monotonic(), 0) if asking else None)
            # What the child said comes before how it ended, so that nothing said is lost.
            if readable:
                end = self._data if self._data in readable else self._control
                piece = _received(end)
                if not piece:
                    listening.remove(end)
                    if end is self._control:
                        break
                elif end is self._control:
                    self._told += piece
                else:
                    for kind, body in frames.feed(piece):
                        if kind == MESSAGE:
                            on_message(pickle.loads(body))  # noqa: S301 - from the process that this one started
                        else:
                            self.last = kind, body
            if asking and should_stop is not None and time.monotonic() >= ask_at:
                ask_at = time.monotonic() + _ASK_EVERY_S
                self.stop_reason = should_stop()
                if self.stop_reason is not None:
                    with contextlib.suppress(ConnectionError):
                        self._control.sendall(b"s")
        if not self._told:  # the warden was killed; its child notices, and is waited for
            self._data.settimeout(_GIVE_UP_S)
            with contextlib.suppress(TimeoutError):
                while _received(self._data):
                    pass


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        """Refuse what the child could not find, here, where the caller sees why."""
        if isinstance(thing, (types.FunctionType, type)) and thing.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{thing.__qualname__} is of the script that was started, which a child cannot import"
            )
        return NotImplemented


def packed_call(function: Callable[..., object], args: tuple[object, ...], warm_up: object, reports: bool) -> bytes:
    """What a child needs to make the call.

    Raises:
        ValueError: something of it cannot be pickled, or not be found from another process.
    """
    try:
        parts = [None if part is None else _pickled(part) for part in (warm_up, (function, args))]
    except Exception as error:  # pickling runs anyone's __reduce__
        name = getattr(function, "__qualname__", repr(function))
        raise ValueError(
            f"{name} and its arguments cannot be sent to a process of their own: {error}. "
            "The function must be at the top level of a module that can be imported, its arguments picklable."
        ) from error
    return pickle.dumps((sys.path, *parts, reports), pickle.HIGHEST_PROTOCOL)


def _pickled(thing: object) -> bytes:
    into = BytesIO()
    _Pickler(into, pickle.HIGHEST_PROTOCOL).dump(thing)
    return into.getvalue()


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(_PIECE)
    except ConnectionError:
        return b""
