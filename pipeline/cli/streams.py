"""Standard output and error that never end a command: an error of writing is kept, and not raised.

A pipe without a reader, a closed terminal, a full disk, characters that the encoding lacks: the work goes on, and
everything that can be written is. The lowest layer of `sys.stdout` and `sys.stderr` is replaced, so that all writing
of this process passes through here: print, rich, logging, warnings, Python's own last flush.
"""

import errno
import io
import math
import os
import select
import stat
import sys
import time
from typing import Any

from pipeline import stop

PATIENCE_S = 30.0
"""How long progress waits for a reader that does not read (a pager, Ctrl-S) before it is left out."""
_POLL_S = 0.2
_READER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Output(io.FileIO):
    """The descriptor of a standard stream; what cannot be written is left out.

    Attributes:
        failure: the first error of writing.
        has_reader: False once it is known that nobody reads it any more.
    """

    def __init__(self, descriptor: int, patience_s: float = math.inf) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self.has_reader = True
        self._patience_s = patience_s
        self._left_out = 0

    def write(self, data: Any) -> int:
        """Write some of it, as a raw stream may; if it cannot, claim to have written all."""
        piece = memoryview(data)[: select.PIPE_BUF]  # a pipe that is ready takes this much without waiting
        try:
            if not self._is_ready():
                self._left_out += len(data)
                return len(data)
            if self._left_out:
                notice, self._left_out = f"\n[{self._left_out} bytes that nobody read were left out]\n", 0
                super().write(notice.encode("ascii"))
            written = super().write(piece)
        except OSError as error:
            self.failure = self.failure or error
            if error.errno in _READER_GONE and not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                self.has_reader = False
            if error.errno not in _MAY_PASS:  # for good: others that write here, such as a child, do not fail
                _discard(self.fileno())
            return len(data)
        return 0 if written is None else written

    def _is_ready(self) -> bool:
        """Wait until it can be written, but no longer than the patience, nor after a signal that asks to leave."""
        until = time.monotonic() + (0 if self._left_out else self._patience_s)
        while not select.select([], [self], [], _POLL_S)[1]:
            if stop.signal_received() or time.monotonic() >= until:
                return False
        return True


def take_over() -> None:
    """Replace the streams that Python has opened; open those that were closed, on the null device."""
    closed = _fill_gaps()
    if 0 in closed:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # otherwise a test or an embedding program has its own
        sys.stdout = sys.__stdout__ = _text(1, sys.stdout, math.inf)  # type: ignore[misc]
    if sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _text(2, sys.stderr, PATIENCE_S)  # type: ignore[misc]


def unwritten() -> str | None:
    """Why what was written to stdout did not arrive; None if it did, or if nobody wanted the rest."""
    output = _stdout()
    if output is None or output.failure is None or not output.has_reader:
        return None
    return output.failure.strerror


def has_reader() -> bool:
    """Whether anybody may still read what is written to stdout."""
    output = _stdout()
    return output is None or output.has_reader


def _stdout() -> Output | None:
    """The lowest layer of stdout; None if it is not ours."""
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output if isinstance(output, Output) else None


def _text(descriptor: int, replaced: Any, patience_s: float) -> io.TextIOWrapper:
    if replaced is not None:
        replaced.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor, patience_s)),
        encoding=replaced.encoding if replaced is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def _fill_gaps() -> set[int]:
    """Open those of 0, 1 and 2 that are closed: the next file would get that number, and all that is printed."""
    closed = set()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            _discard(descriptor)
    return closed


def _discard(descriptor: int) -> None:
    """Point a descriptor to the null device, for children too."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)
