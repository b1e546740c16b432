import errno

import pytest

from tuning.capped.out_of_memory import is_out_of_host_memory, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 80 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Cannot allocate memory"),
        RuntimeError("dnnl_out_of_memory"),
    ],
)
def test_a_refused_allocation_in_main_memory_is_recognised(error):
    assert is_out_of_host_memory(error)
    assert is_out_of_memory(error)


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB", "MPS backend out of memory"])
def test_a_full_graphics_card_is_out_of_memory_but_not_of_the_host_s(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_host_memory(RuntimeError(text))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not match"), ValueError("not enough memory"), OSError(errno.ENOSPC, "disk full")],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)
    assert not is_out_of_host_memory(error)
