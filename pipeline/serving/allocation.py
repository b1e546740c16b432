"""How glibc keeps memory in a server that runs for weeks."""

import ctypes
import gc
import sys

from pipeline.training.allocator import give_back_freed_memory

ARENAS = 2
"""Heaps for all threads together. By default each has its own, which keeps what its largest request took."""


def settle() -> None:
    """Call it when all is loaded, before threads are started: what loading took is returned, and threads share heaps.

    What is loaded stays, so Python's collector looks at it no more: that would cost the start, and later a request,
    tenths of a second. Heaps are glibc's; with another C library they stay as they are.
    """
    gc.freeze()
    give_back_freed_memory()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(-8, ARENAS)  # M_ARENA_MAX of malloc.h
