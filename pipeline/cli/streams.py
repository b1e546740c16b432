"""Standard streams that never end a command: a reader that is gone, a closed terminal, letters that do not fit.

What is shown is worth less than the work. So a write that fails is noted, and the command goes on.
"""

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)
"""The reader of a pipe has ended, or the terminal was closed: nobody is there to be told."""
_WAIT_S = 5.0
"""For how long a reader of a stream that does not block may be slow before what it misses is dropped."""


class _Lasting(io.FileIO):
    """A stream's file; a write to it always succeeds, and `problem` says whether it really did."""

    problem: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write what can be written, and drop what cannot."""
        left = memoryview(content).cast("B")
        size = len(left)
        while left and not self._is_gone():
            try:
                written = super().write(left)
            except OSError as error:
                self.problem = error
                if self._is_gone():  # what is started from here on, and C code, is not to find it broken either
                    _open_nothing(self.fileno())
                break
            if written is None and not select.select([], [self], [], _WAIT_S)[1]:  # it does not block, and is full
                self.problem = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                break
            left = left[written or 0 :]
        return size

    def _is_gone(self) -> bool:
        return self.problem is not None and self.problem.errno in _GONE


def take_over() -> None:
    """Replace stdout and stderr by streams to which no write fails; a closed one leads nowhere.

    Letters that the encoding lacks are written as escapes. Streams that somebody else has put in their place stay.
    """
    for descriptor in (0, 1, 2):  # else the next file that is opened gets its number, and is written into
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nothing(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, line_buffering=os.isatty(1))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, line_buffering=True)


def lost_results() -> str | None:
    """Why a part of stdout was not written although somebody waits for it (a full disk); None if all was."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    problem = raw.problem if isinstance(raw, _Lasting) else None
    return None if problem is None or problem.errno in _GONE else problem.strerror


def _stream(descriptor: int, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    if before is not None:
        before.flush()
    raw = _Lasting(descriptor, "w", closefd=False)
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


def _open_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
