"""Searches on a machine that does not reach itself: in a network namespace without a working loopback (root only)."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from product import SEQPIPE, leave, tiny

SEARCH = ["tune", *tiny(train__epochs=1), "--trials", "1"]


class Namespace:
    """A network of its own, with nothing in it but a loopback that can be cut off."""

    def __init__(self) -> None:
        self.name = f"seqpipe-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, capture_output=True)

    def loopback(self, state: str) -> None:
        self.ip("link", "set", "lo", state)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def within(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, SEQPIPE, *words]

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture
def namespace():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command ip")
    try:
        made = Namespace()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
    yield made
    made.remove()


@pytest.fixture
def temp(place):
    """Where Ray's folder is made; short, for paths of sockets are."""
    folder = Path(tempfile.mkdtemp(prefix="nl-", dir="/tmp"))
    place.set(TMPDIR=str(folder), TEST_OF_LOOPBACK=str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # the cleanup may be at it


def start(place, namespace, *words):
    """`ip netns exec` becomes the command: signals reach it."""
    process = subprocess.Popen(
        namespace.within(*words),
        cwd=place.root,
        env=place.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place.started.append(process)
    return process


def is_left(temp):
    """Whether a process of the command's lives, or a folder of Ray's is there."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("TEST_OF_LOOPBACK") == str(temp) and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (psutil.Error, OSError):
            continue
    return any(temp.glob("ray-*"))


def gone_within(temp, seconds):
    until = time.monotonic() + seconds
    while is_left(temp) and time.monotonic() < until:
        time.sleep(0.1)
    return not is_left(temp)


def cut_off_as_ray_starts(place, namespace, temp):
    namespace.loopback("up")
    process = start(place, namespace, *SEARCH)
    assert place.wait_for(lambda: any(temp.glob("ray-*")), process)
    namespace.loopback("down")
    return process


def test_a_loopback_that_is_down_is_reported_at_once_and_nothing_is_started(place, namespace, temp):
    began = time.monotonic()
    process = start(place, namespace, *SEARCH)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 6
    assert len(err.splitlines()) == 1
    assert "does not reach itself over 127.0.0.1" in err
    assert time.monotonic() - began < 15
    assert gone_within(temp, 1)
    assert not (place.root / ".seqpipe" / "stages").exists()


def test_a_loopback_that_swallows_everything_is_reported_within_seconds(place, namespace, temp):
    namespace.loopback("up")
    swallow = ["tc", "-n", namespace.name, "qdisc", "add", "dev", "lo", "root"]
    swallow += ["tbf", "rate", "8bit", "burst", "1", "latency", "1ms"]
    if shutil.which("tc") is None or subprocess.run(swallow, check=False, capture_output=True).returncode != 0:
        pytest.skip("this kernel cannot swallow packets")
    process = start(place, namespace, *SEARCH)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 6
    assert "does not reach itself over 127.0.0.1 (timed out)" in err


def test_a_ray_that_does_not_come_up_is_given_up_after_half_a_minute(place, namespace, temp):
    process = cut_off_as_ray_starts(place, namespace, temp)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "a local Ray did not start within 30 s" in err.splitlines()[-1]
    assert time.monotonic() - began < 35
    assert gone_within(temp, 5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_while_ray_hangs_in_its_start_a_signal_ends_the_command(place, namespace, temp, number, code):
    process = cut_off_as_ray_starts(place, namespace, temp)
    time.sleep(3)
    done = leave(process, number)
    assert done.code == code, done.err
    assert done.seconds < 4
    assert len(done.errors) == 1
    assert gone_within(temp, 5)


def test_an_own_address_that_a_vpn_swallows_does_not_matter(place, namespace, temp):
    namespace.loopback("up")
    try:
        namespace.ip("link", "add", "vpn", "type", "veth", "peer", "name", "void")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no veth")
    namespace.ip("addr", "add", "10.9.8.7/24", "dev", "vpn")
    namespace.ip("link", "set", "vpn", "up")
    namespace.ip("link", "set", "void", "up")
    namespace.ip("route", "add", "default", "via", "10.9.8.1")
    namespace.ip("route", "del", "table", "local", "local", "10.9.8.7", "dev", "vpn")
    process = start(place, namespace, *SEARCH)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert gone_within(temp, 5)
