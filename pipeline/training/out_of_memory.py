"""A failed allocation ends a training with advice, not with a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import MemoryCapError
from pipeline.training.numerics import Numerics
from tuning.capped.out_of_memory import is_out_of_memory


@contextmanager
def explaining_out_of_memory(numerics: Numerics) -> Iterator[None]:
    """Turn a failed allocation into a `MemoryCapError` that names the setting which needs less."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        half = max(1, numerics.micro_batch_size // 2)
        raise MemoryCapError(
            f"out of memory with {numerics.micro_batch_size} images at once; the last checkpoint is kept.\n"
            f"--set compute.micro_batch_size={half} holds fewer at once and trains on the same batches."
        ) from error
