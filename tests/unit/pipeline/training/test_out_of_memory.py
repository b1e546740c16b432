import dataclasses

import pytest

from pipeline.errors import MemoryCapError
from pipeline.training.out_of_memory import explaining_out_of_memory


@pytest.mark.parametrize(("size", "advised"), [(128, 64), (5, 2), (1, 1)])
def test_the_advice_is_half_the_micro_batch(bench, size, advised):
    numerics = dataclasses.replace(bench.numerics, micro_batch_size=size)
    with (
        pytest.raises(MemoryCapError, match=rf"{size} images at once.*\n--set compute.micro_batch_size={advised} "),
        explaining_out_of_memory(numerics),
    ):
        raise MemoryError


def test_another_error_is_not_taken_for_a_lack_of_memory(bench):
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError) as caught, explaining_out_of_memory(bench.numerics):
        raise error
    assert caught.value is error
