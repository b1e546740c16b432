"""What glibc does with freed memory."""

import ctypes
import gc
import sys


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, instead of returning it and fetching zeroed pages again.

    A step allocates and frees the same sizes over and over. By default every large allocation gets new pages:
    60 thousand page faults a step of small, 8 % of its time.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt(trim_threshold, 2**30)
    if not mallopt(mmap_threshold, 2**30):
        mallopt(mmap_threshold, 32 * 2**20)  # the most that older releases accept


def give_back_freed_memory() -> None:
    """Have glibc return the freed memory that it kept, so that a later stage under a memory cap has it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        gc.collect()
        trim(0)
