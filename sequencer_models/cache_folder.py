"""The cache folder of this machine: built kernels, measured speeds, and shared files of searches."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`seqpipe` in the user's cache folder."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "seqpipe"
    try:
        return Path.home() / ".cache" / "seqpipe"
    except RuntimeError:  # a user without a home: a path that cannot be created, so nothing is kept
        return Path(os.devnull) / "seqpipe"
