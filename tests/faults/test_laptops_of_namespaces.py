"""The laptops that the tests of two laptops stand on: what they share, what their cable does, what they leave."""

import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from cable import Carries
from cluster_of_laptops import lost_s, repeated_epochs
from laptop import HOME, REPOSITORY, why_not
from two_laptops import laptops

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
ECHO = """
import socket, sys
server = socket.create_server(("", 7000))
print("ready", flush=True)
while True:
    caller, _ = server.accept()
    while said := caller.recv(65536):
        if len(said) == 1:
            caller.sendall(said)
    caller.close()
"""
ASK = """
import socket, sys, time
caller = socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[3]))
began = time.monotonic()
for _ in range(int(sys.argv[2])):
    caller.sendall(b"x")
    caller.recv(1)
print(time.monotonic() - began)
"""
SEND = """
import socket, sys, time
caller = socket.create_connection((sys.argv[1], 7000))
left = int(sys.argv[2])
began = time.monotonic()
while left > 0:
    caller.sendall(b"x" * 65536)
    left -= 65536
caller.shutdown(socket.SHUT_WR)
while caller.recv(65536):
    pass
print(time.monotonic() - began)
"""


@contextmanager
def two(folder, **words):
    with laptops(folder, **words) as made:
        server = made.a.start(sys.executable, "-c", ECHO)
        server.wait_until_said("ready")
        yield made


def ask(laptop, address, times=1, timeout_s=5.0):
    return laptop.run(sys.executable, "-c", ASK, address, str(times), str(timeout_s), timeout_s=60)


@pytest.mark.parametrize("wired", [True, False])
def test_packets_pass_until_the_cable_is_cut_and_again_when_it_is_mended(tmp_path, wired):
    with two(tmp_path, wired=wired) as made:
        joint = made.wire or made.cable
        assert ask(made.b, made.a.address).code == 0
        joint.cut()
        assert ask(made.b, made.a.address, timeout_s=1).code == 1
        joint.mend()
        assert ask(made.b, made.a.address).code == 0


def test_a_connection_outlives_a_cut_that_nobody_is_told_of(tmp_path):
    with two(tmp_path) as made:
        asking = made.b.start(sys.executable, "-c", ASK, made.a.address, "10000", "30")
        time.sleep(0.5)
        made.cable.cut()
        time.sleep(1)
        assert asking.poll() is None
        made.cable.mend()
        assert asking.wait(30).code == 0


def test_latency_loss_and_rate_are_what_was_asked_for(tmp_path):
    with two(tmp_path) as made:
        plain = float(ask(made.b, made.a.address, times=100).out) / 100
        made.cable.be(Carries(delay_ms=50))
        slow = float(ask(made.b, made.a.address, times=10).out) / 10
        assert plain < 0.01
        assert 0.1 < slow < 0.13
        made.cable.be(Carries(mbit=10))
        sent = float(made.b.run(sys.executable, "-c", SEND, made.a.address, "2500000").out)
        assert 2.0 < sent < 3.0, "2.5 MB at 10 Mbit/s"
        made.cable.be(Carries(loss=1.0))
        assert ask(made.b, made.a.address, timeout_s=1).code == 1


def test_a_firewall_drops_calls_in_one_direction_only(tmp_path):
    with two(tmp_path) as made:
        made.cable.be(Carries(calls_refused_by=(1,)))
        assert ask(made.b, made.a.address).code == 0
        made.cable.be(Carries(calls_refused_by=(0,)))
        assert ask(made.b, made.a.address, timeout_s=1).code == 1


def test_a_third_laptop_is_on_the_same_cable_and_can_be_unplugged_alone(tmp_path):
    with two(tmp_path, count=3) as made:
        third = made.all[2]
        assert ask(third, made.a.address).code == 0
        made.cable.cut(2)
        assert ask(third, made.a.address, timeout_s=1).code == 1
        assert ask(made.b, made.a.address).code == 0


def test_neither_sees_the_others_disk_processes_or_network_nor_changes_this_machine(tmp_path):
    with two(tmp_path, wired=True) as made:
        for folder in (HOME, "/tmp", "/dev/shm", "/var/tmp", "/run"):
            assert made.a.run("touch", f"{folder}/mine").code == 0
            assert made.a.path(f"{folder}/mine").exists()
            assert not made.b.path(f"{folder}/mine").exists()
            assert not Path(f"{folder}/mine").exists()
        assert made.a.run("touch", str(REPOSITORY / "mine")).code == 1
        assert made.b.run("hostname").out == "laptop-b\n"
        assert any("7000" in line for line in made.a.listening())
        assert made.b.listening() == set()
        assert len(made.a.processes()) == 1
        assert made.b.run("sh", "-c", "ps ax | grep -c server.accept | cat").out.strip() in ("0", "1", "2")
        imported = "import pipeline, tuning, sequencer_models"
        assert made.b.run(sys.executable, "-c", imported).code == 0


def test_a_frozen_laptop_does_nothing_and_goes_on(tmp_path):
    with two(tmp_path) as made:
        made.a.freeze()
        assert ask(made.b, made.a.address, timeout_s=1).code == 1
        made.a.thaw()
        assert ask(made.b, made.a.address).code == 0


def test_a_reboot_ends_everything_and_keeps_disk_name_and_address(tmp_path):
    with two(tmp_path) as made:
        made.a.run("sh", "-c", "echo kept > kept; echo gone > /tmp/gone")
        made.a.reboot()
        assert made.a.processes() == []
        assert made.a.run("cat", "kept").out == "kept\n"
        assert not made.a.path("/tmp/gone").exists()
        assert made.a.run("hostname").out == "laptop-a\n"
        made.a.start(sys.executable, "-c", ECHO).wait_until_said("ready")
        assert ask(made.b, made.a.address).code == 0


def test_a_laptop_gets_another_address(tmp_path):
    with two(tmp_path) as made:
        made.a.change_address("10.77.0.9")
        assert ask(made.b, "10.77.0.9").code == 0
        assert ask(made.b, "10.77.0.1", timeout_s=1).code == 1
        made.b.knows(laptop_a="10.77.0.9")
        assert ask(made.b, "laptop-a").code == 0


def test_a_clock_that_is_ahead_and_a_disk_that_is_full(tmp_path):
    with two(tmp_path) as made:
        told = made.b.run(sys.executable, "-c", "import time; print(time.time())", **made.b.run_ahead(3600))
        assert 3590 < float(told.out) - time.time() < 3610
        made.b.fill_disk()
        assert "No space left" in made.b.run("sh", "-c", "head -c 100000 /dev/zero > file").err
        assert "No space left" in made.b.run("sh", "-c", "head -c 100000 /dev/zero > /tmp/file").err
        made.b.empty_disk()
        assert made.b.run("sh", "-c", "head -c 100000 /dev/zero > file").code == 0


def test_a_source_of_its_own_can_be_changed_for_one_laptop(tmp_path):
    with two(tmp_path) as made:
        made.b.own_source()
        made.b.path(str(REPOSITORY / "tuning" / "__init__.py")).write_text("changed = True\n")
        script = "import tuning; print(hasattr(tuning, 'changed'))"
        assert made.b.run(sys.executable, "-c", script).out == "True\n"
        assert made.a.run(sys.executable, "-c", script).out == "False\n"


def test_signals_reach_a_command_and_its_end_is_its_own(tmp_path):
    with two(tmp_path) as made:
        command = made.b.start("sh", "-c", "trap 'exit 7' INT; echo up; sleep 60 & wait")
        command.wait_until_said("up")
        assert command.leave().code == 7
        command = made.b.start("sleep", "60")
        assert command.leave(signal.SIGKILL).code == -signal.SIGKILL


def test_a_terminal_shows_takes_keys_and_closes(tmp_path):
    with two(tmp_path) as made:
        screen = made.b.terminal("sh", "-c", "read word; echo got $word; tty; sleep 60")
        screen.type("hello\n")
        screen.wait_until_said("got hello")
        screen.wait_until_said("/dev/")
        screen.type("\x03")
        assert screen.wait(10).code in (130, -signal.SIGINT)
        screen = made.b.terminal("sleep", "60")
        assert screen.pid
        screen.close()
        assert screen.wait(10).code == -signal.SIGHUP


def test_nothing_is_left(tmp_path):
    def around():
        return Path("/proc/self/mounts").read_text(), sorted(Path("/sys/class/net").iterdir())

    before = around()
    with two(tmp_path) as made:
        made.b.start("sh", "-c", "setsid sleep 600 & setsid sleep 600")
        firsts = [laptop.init for laptop in made.all]
        networks = {network_of(first) for first in firsts}
        assert around() == before
    assert around() == before
    assert not any(Path(f"/proc/{first}").exists() for first in firsts)
    assert not any(network_of(entry.name) in networks for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def network_of(pid):
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None


def events(*told):
    """`report` events of row 0: an epoch and when it was told, in seconds."""
    return [{"event": "report", "row": 0, "epoch": epoch, "time_ms": 1000 * at} for epoch, at in told]


def test_lost_work_is_what_was_reported_after_the_epoch_that_it_went_on_from():
    assert lost_s(events((1, 10), (2, 12), (3, 14)), 0) == 0
    assert lost_s(events((1, 10), (2, 12), (3, 14), (3, 30), (4, 32)), 0) == 2
    assert lost_s(events((1, 10), (2, 12), (3, 14), (2, 30), (3, 32)), 0) == 4
    assert lost_s(events((1, 10), (2, 12), (2, 30), (3, 32), (3, 50)), 0) == 4
    assert lost_s(events((1, 10), (1, 30)), 1) == 0
    assert repeated_epochs(events((1, 10), (2, 12), (2, 30)), 0) == 1
