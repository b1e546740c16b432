"""The nearest known name of one that is not known."""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: what was meant, or all that there is; empty if that is much."""
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the right name in the wrong group
        near = [key for key in known if difflib.get_close_matches(leaf, [key.rpartition(".")[2]], cutoff=0.8)]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""
