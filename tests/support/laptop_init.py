"""The first process of a laptop: it buries the dead, and with it everything on the laptop ends.

python laptop_init.py          its standard input is held by the test; at its end the laptop is switched off
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

_DETACH = 2


def main() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.umount2(b"/proc", _DETACH)  # of the start before this one
    if library.mount(b"proc", b"/proc", b"proc", 0, None):
        raise OSError(ctypes.get_errno(), "mount /proc")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("up", flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
