"""Whether an exception means that memory ran out; the one list of what torch's and other allocators say."""

import errno

_HOST_PHRASES = (
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "out_of_memory",
)
_CARD_PREFIXES = ("CUDA", "MPS", "HIP", "XPU")
_CARD_PHRASE = "out of memory"


def is_out_of_host_memory(error: BaseException) -> bool:
    """Whether an allocation in main memory was refused; a graphics card's memory is not under the cap."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return (
        isinstance(error, RuntimeError)
        and not str(error).startswith(_CARD_PREFIXES)
        and any(phrase in str(error).lower() for phrase in _HOST_PHRASES)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused, in main memory or on a graphics card."""
    return is_out_of_host_memory(error) or (
        isinstance(error, RuntimeError)
        and any(phrase in str(error).lower() for phrase in (*_HOST_PHRASES, _CARD_PHRASE))
    )
