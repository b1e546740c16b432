"""What the kernel's figures mean, read below a made-up root under a clock that the test moves."""

import resource

import psutil
import pytest

from tuning import memory_pressure
from tuning.memory_pressure import SWAPPED_OUT_MB_PER_S, WAITING, MemoryReader, MemoryReading

GB = 10**9


class Kernel:
    """The counters of a machine with 8 GB, 3 of them available."""

    def __init__(self, root):
        self.root = root
        self.now = 50.0
        (root / "proc/pressure").mkdir(parents=True)
        self.write(waited_us=7_000_000, swapped_pages=900)

    def write(self, waited_us, swapped_pages):
        (self.root / "proc/pressure/memory").write_text(
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={waited_us}\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=99999999\n"
        )
        (self.root / "proc/vmstat").write_text(f"pswpin 123456789\npswpout {swapped_pages}\nallocstall 9\n")

    def reader(self):
        return MemoryReader(self.root, lambda: self.now)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    class Memory:
        total = 8 * GB
        available = 3 * GB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(memory_pressure, "mac_pressure_level", lambda: 0)
    return Kernel(tmp_path)


def test_what_was_waited_and_swapped_before_the_first_reading_is_no_pressure(kernel):
    read = kernel.reader()
    kernel.now += 1
    assert read() == MemoryReading(8000, 3000, pressure=False)


@pytest.mark.parametrize(("share", "pressure"), [(WAITING * 0.9, False), (WAITING * 1.1, True)])
def test_waiting_for_memory_is_pressure_by_its_share_of_the_time_since_the_last_reading(kernel, share, pressure):
    read = kernel.reader()
    kernel.now += 0.5
    kernel.write(waited_us=7_000_000 + int(share * 0.5e6), swapped_pages=900)
    assert read().pressure is pressure
    kernel.now += 0.5
    assert not read().pressure, "nothing was waited for since"


@pytest.mark.parametrize(("share", "pressure"), [(0.9, False), (1.1, True)])
def test_swapping_out_is_pressure_by_its_speed(kernel, share, pressure):
    pages = share * SWAPPED_OUT_MB_PER_S * 2 * 1e6 / resource.getpagesize()
    read = kernel.reader()
    kernel.now += 2
    kernel.write(waited_us=7_000_000, swapped_pages=900 + int(pages))
    assert read().pressure is pressure


def test_a_kernel_without_these_figures_reports_no_pressure(kernel):
    (kernel.root / "proc/pressure/memory").unlink()
    (kernel.root / "proc/vmstat").write_text("nr_free_pages 1\n")
    read = kernel.reader()
    kernel.now += 1
    assert read() == MemoryReading(8000, 3000, pressure=False)


@pytest.mark.parametrize(("level", "pressure"), [(0, False), (1, False), (2, True), (4, True)])
def test_macos_has_a_level_of_its_own(kernel, monkeypatch, level, pressure):
    monkeypatch.setattr(memory_pressure, "mac_pressure_level", lambda: level)
    assert kernel.reader()().pressure is pressure


def test_the_level_is_asked_of_macos_alone_and_by_its_name(monkeypatch):
    class Library:
        def sysctlbyname(self, name, level, *_):
            assert name == b"kern.memorystatus_vm_pressure_level"
            level._obj.value = 2

    monkeypatch.setattr(memory_pressure.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(memory_pressure.sys, "platform", "linux")
    assert memory_pressure.mac_pressure_level() == 0
    monkeypatch.setattr(memory_pressure.sys, "platform", "darwin")
    assert memory_pressure.mac_pressure_level() == 2


def test_this_machine_can_be_read():
    reading = MemoryReader()()
    assert 0 <= reading.available_mb <= reading.total_mb
