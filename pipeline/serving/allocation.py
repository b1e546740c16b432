"""How glibc keeps memory in a server that runs for weeks."""

import ctypes
import sys

ARENAS = 2
"""Heaps for all threads together. By default each has its own, which keeps what its largest request took."""


def use_few_arenas() -> None:
    """Have threads that come from now on share heaps; does nothing where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(-8, ARENAS)  # M_ARENA_MAX of malloc.h
