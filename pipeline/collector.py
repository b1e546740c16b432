"""Python's cyclic garbage collector, which imports need not wait for."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Load large libraries meanwhile: the collector would go over what they define again and again.

    That is a third of the time of `import torch`, for nothing: modules stay.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
