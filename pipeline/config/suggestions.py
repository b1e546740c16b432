"""The known name that is nearest to an unknown one."""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest one, or all if they are few, or nothing."""
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the right name in the wrong group
        near = [key for key in known if difflib.get_close_matches(leaf, [key.rpartition(".")[2]], cutoff=0.8)]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""
