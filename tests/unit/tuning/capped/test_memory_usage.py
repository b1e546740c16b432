import ctypes
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tuning.capped.memory_usage import process_memory_mb, tree_memory_mb

HIDDEN = Path("/no/proc/here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HOLD_40_MB = "import sys; held = bytearray(b'x') * 40_000_000; print('ready', flush=True); sys.stdin.read()"
CHILD_HOLDS = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {HOLD_40_MB!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


def taken(megabytes: int) -> mmap.mmap:
    """New pages of this process alone, written to; not what an allocator had kept from before."""
    pages = mmap.mmap(-1, megabytes * 1_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(pages), 4096):
        pages[offset] = 1
    return pages


@linux
def test_what_a_process_takes_is_counted_and_no_longer_when_it_is_given_back():
    before = process_memory_mb(os.getpid())
    held = taken(64)
    during = process_memory_mb(os.getpid())
    held.close()
    after = process_memory_mb(os.getpid())
    assert 60 < during - before < 75
    assert 60 < during - after < 75


def test_without_proc_it_is_the_unique_set_size(monkeypatch):
    """The size itself is not asked for here: it changes as other processes map and unmap the same libraries."""
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda process: SimpleNamespace(uss=123e6, rss=456e6))
    assert process_memory_mb(os.getpid(), HIDDEN) == 123


def test_on_macos_the_physical_footprint_is_taken(monkeypatch):
    class Library:
        @staticmethod
        def proc_pid_rusage(pid: int, flavour: int, into: ctypes.Array[ctypes.c_char]) -> int:
            ctypes.memmove(into, struct.pack("16s9Q", b"uuid", 1, 2, 3, 4, 5, 6, 7, 123_000_000, 9), 88)
            return 0 if (pid, flavour) == (42, 0) else -1

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert process_memory_mb(42, HIDDEN) == 123
    assert process_memory_mb(os.getpid(), HIDDEN) > 5  # refused: by other means


@pytest.mark.parametrize("refusal", [psutil.AccessDenied, AttributeError])
def test_without_proc_and_without_a_unique_set_size_the_resident_size_is_taken(monkeypatch, refusal):
    def refuse(process: psutil.Process) -> None:
        raise refusal

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    resident = psutil.Process().memory_info().rss / 1e6
    assert process_memory_mb(os.getpid(), HIDDEN) == pytest.approx(resident, rel=0.1)


@linux
def test_a_file_that_is_only_mapped_and_read_is_not_charged(tmp_path):
    path = tmp_path / "data.npy"
    path.write_bytes(b"x" * 64_000_000)
    with path.open("rb") as file:
        before = process_memory_mb(os.getpid())
        resident = psutil.Process().memory_info().rss
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert sum(mapped[offset] for offset in range(0, len(mapped), 4096)) > 0
        assert psutil.Process().memory_info().rss - resident > 50e6  # it is in memory,
        assert process_memory_mb(os.getpid()) - before < 8  # and not ours alone
        mapped.close()


@linux
def test_anonymous_shared_and_swapped_memory_is_charged_and_file_pages_are_not(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "Name:\tpython\nVmRSS:\t 90000 kB\nRssAnon:\t 1000 kB\nRssFile:\t 80000 kB\n"
        "RssShmem:\t 200 kB\nVmSwap:\t 30 kB\n"
    )
    assert process_memory_mb(7, tmp_path) == 1230 * 1024 / 1e6


@pytest.mark.parametrize("proc", [Path("/proc"), HIDDEN])
def test_a_tree_is_charged_for_what_a_child_takes(proc):
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD_HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        child = int(parent.stdout.readline())
        tree, alone = tree_memory_mb(parent.pid, proc), process_memory_mb(parent.pid, proc)
        assert alone < 40 < process_memory_mb(child, proc)
        assert tree == pytest.approx(alone + process_memory_mb(child, proc), rel=0.05)


@pytest.mark.parametrize("proc", [Path("/proc"), HIDDEN])
def test_a_process_that_is_gone_holds_nothing(proc):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert process_memory_mb(done.pid, proc) == 0
    assert tree_memory_mb(done.pid, proc) == 0


@linux
def test_a_process_is_measured_whatever_bytes_its_name_holds(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_bytes(b"Name:\tcaf\xe9\nRssAnon:\t    1000 kB\n")
    assert process_memory_mb(7, tmp_path) == pytest.approx(1.024)


@linux
def test_a_process_that_may_not_be_inspected_counts_as_nothing(monkeypatch):
    def refuse(path: Path, **how: str) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert process_memory_mb(1) == 0
