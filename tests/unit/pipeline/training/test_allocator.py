import pytest

from pipeline.training import allocator


@pytest.fixture
def libc(monkeypatch):
    """Stands for the C library; `calls` has what was asked of it, and the sizes above `limit` are refused."""

    class Libc:
        calls: list[tuple[str, int, int]] = []  # noqa: RUF012
        limit = 2**40

        def mallopt(self, parameter: int, value: int) -> int:
            Libc.calls.append(("mallopt", parameter, value))
            return int(value <= Libc.limit)

        def malloc_trim(self, pad: int) -> int:
            Libc.calls.append(("malloc_trim", pad, 0))
            return 1

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Libc())
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    Libc.calls = []
    return Libc


def test_large_blocks_stay_in_the_heap_and_are_not_returned(libc):
    allocator.keep_freed_memory()
    assert libc.calls == [("mallopt", -1, 2**30), ("mallopt", -3, 2**30)]


def test_an_older_release_gets_the_most_that_it_accepts(libc):
    libc.limit = 32 * 2**20
    allocator.keep_freed_memory()
    assert libc.calls[-1] == ("mallopt", -3, 32 * 2**20)


def test_freed_memory_can_be_given_back(libc):
    allocator.give_back_freed_memory()
    assert libc.calls == [("malloc_trim", 0, 0)]


@pytest.mark.parametrize("act", [allocator.keep_freed_memory, allocator.give_back_freed_memory])
def test_nothing_is_done_without_glibc(libc, monkeypatch, act):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())  # musl
    act()
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("asked for the C library"))
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    act()
    assert libc.calls == []
