"""What a node left behind that was killed together with its cleanup: found and ended by the next one on this machine.

A node's folder names the mark of its processes, in a file that stays locked while somebody looks after them.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from tuning.on_ray.cleanup import end_marked
from tuning.on_ray.local_ray import short_temp

_PREFIX = "ray-"
_OWNED = "owned"


def new_folder(mark: str) -> tuple[Path, IO[str]]:
    """A folder for a node whose processes carry the mark, and the file that has to stay open as long as it runs."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short_temp()))
    owned = os.open(folder / _OWNED, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(owned, fcntl.LOCK_EX)
    os.write(owned, mark.encode())
    return folder, os.fdopen(owned, "r+")


def end_left_over() -> int:
    """End what is left of this user's nodes that nobody looks after; how many there were."""
    return sum(map(_ended, Path(short_temp()).glob(f"{_PREFIX}*/{_OWNED}")))


def _ended(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.stat().st_uid != os.getuid():
            return False
        with path.open("r+") as owned:
            fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end_marked(owned.read(), str(path.parent), spare=(os.getpid(),))
            shutil.rmtree(path.parent, ignore_errors=True)
            return True
    return False
