"""Where what is made once for a machine is kept: built kernels, and how fast they are."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`seqpipe` in the user's cache folder."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "seqpipe"
    try:
        return Path.home() / ".cache" / "seqpipe"
    except RuntimeError:  # a user without a home: a place that cannot be written, so nothing is kept
        return Path(os.devnull) / "seqpipe"
