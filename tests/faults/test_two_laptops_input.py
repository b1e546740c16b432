"""What is typed wrong at `seqpipe cluster`, or stands in its way: one clear line, in time, and nothing left."""

import re
import sys

import pytest
from cable import Carries
from cluster_of_laptops import cluster, quiet_within, record, separate
from laptop import HOME, REPOSITORY, why_not
from product import SEQPIPE

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    caller, _ = server.accept()
    caller.recv(4096)
    caller.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
    caller.close()
"""
WEB = "HTTP/1.1 400 Bad Request\\r\\nServer: nginx\\r\\nContent-Length: 0\\r\\n\\r\\n"
REDIS = "-ERR unknown command\\r\\n"
HEAD_PORT = 6480
ASK_THE_HEAD = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).get_all_node_info())
"""
ANOTHER_CODE = """
import sys
from tuning.cluster.join_code import JoinCode
print(JoinCode.new(JoinCode.parse(sys.argv[1]).digest))
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A head that nobody has joined, for many tries."""
    with cluster(tmp_path_factory.mktemp("up"), join=False) as made:
        yield made


def refused(done, *words, code=6):
    """It ended with one line that says this, and nothing of it is left."""
    assert done.code == code, (done.code, done.out, done.err)
    assert len(done.errors) == 1, done.err
    for word in words:
        assert word in done.errors[0], done.errors
    return done.seconds


def try_join(up, address, laptop=None, code=None, **environ):
    given = {"SEQPIPE_JOIN_CODE": code or up.code, **environ}
    laptop = laptop or up.b
    done = laptop.run(SEQPIPE, "cluster", "join", address, timeout_s=60, **given)
    if laptop is up.b:
        quiet_within(laptop, 5)
    return done


def test_an_unknown_host(up):
    seconds = refused(try_join(up, "no-such-laptop"), "no-such-laptop")
    assert seconds < 10


def test_a_host_where_nothing_answers(up):
    up.laptops.radio.cut()
    seconds = refused(try_join(up, "10.77.0.1"), "10.77.0.1")
    up.laptops.radio.mend()
    assert seconds < 10
    assert refused(try_join(up, "10.77.0.99"), "10.77.0.99") < 10
    assert refused(try_join(up, "10.77.0.1:6999"), "10.77.0.1:6999") < 10


@pytest.mark.parametrize(("says", "words"), [(WEB, "web server"), (REDIS, "Redis")])
def test_a_host_that_is_no_head(up, says, words):
    server = up.a.start(sys.executable, "-c", LISTEN, "", "7070", says)
    server.wait_until_said("ready")
    try:
        seconds = refused(try_join(up, "10.77.0.1:7070"), words)
        assert seconds < 10
    finally:
        server.leave(9)


def test_a_wrong_or_old_code_is_refused_in_two_seconds(up):
    kept = up.code
    other = up.b.run(sys.executable, "-c", ANOTHER_CODE, kept).out.strip()
    seconds = refused(try_join(up, "10.77.0.1", code=other), "code")
    plain = up.b.run(SEQPIPE, "cluster", "join", "--help").seconds
    record("a wrong code", refused_s=seconds, of_which_the_start_of_a_command_s=plain)
    assert seconds - plain < 2
    for mistyped in ("", "hello", kept[:-1], kept[:-1] + ("A" if kept[-1] != "A" else "B")):
        done = up.b.run(SEQPIPE, "cluster", "join", "10.77.0.1", SEQPIPE_JOIN_CODE=mistyped)
        assert done.code in (2, 6), (mistyped, done.err)
        assert len(done.errors) == 1, done.err
        assert done.seconds - plain < 2


def test_typing_is_forgiving_and_the_code_may_come_from_a_file_of_ones_own(up):
    folder = up.b.path(HOME)
    (folder / "code").write_text(up.code.lower().replace("-", " ") + "\n")
    (folder / "code").chmod(0o644)
    done = up.b.run(SEQPIPE, "cluster", "join", "10.77.0.1", "--code-file", f"{HOME}/code")
    refused(done, "chmod 600", code=done.code)
    assert done.code in (2, 6)
    (folder / "code").chmod(0o600)
    member = up.b.start(SEQPIPE, "cluster", "join", "10.77.0.1", "--code-file", f"{HOME}/code")
    member.wait_until_said("in the cluster", 60)
    assert member.leave().code in (0, 130)
    quiet_within(up.b, 5)


def test_the_code_is_asked_for_and_not_shown(up):
    screen = up.b.terminal(SEQPIPE, "cluster", "join", "10.77.0.1", SEQPIPE_JOIN_CODE=None)
    screen.wait_until_said("code", 20)
    screen.type(up.code + "\n")
    screen.wait_until_said("in the cluster", 60)
    screen.type("\x03")
    assert screen.wait(30).code in (0, 130)
    assert up.code not in screen.out
    quiet_within(up.b, 5)


def test_a_joined_to_itself(up):
    for address in ("10.77.0.1", "127.0.0.1", "localhost"):
        refused(try_join(up, address, up.a), address, "this machine", "other laptop")


def test_an_address_that_both_laptops_have(up):
    for laptop in up.laptops.all:
        for words in ("link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up"):
            assert laptop.run("ip", *words.split(), at="/").code == 0
    try:
        refused(try_join(up, "172.17.0.1"), "172.17.0.1")
    finally:
        for laptop in up.laptops.all:
            laptop.run("ip", "link", "del", "docker0", at="/")


def test_a_firewall_on_b_is_found_before_it_joins(up):
    up.laptops.radio.be(Carries(calls_refused_by=(1,)))
    try:
        done = try_join(up, "10.77.0.1")
        assert done.code == 6
        assert "firewall" in done.err + done.out
    finally:
        up.laptops.radio.be(Carries())


def test_a_second_up_and_a_second_join(up):
    refused(up.run("up"), "already", code=6)
    member = up.begin_join(up.b)
    member.wait_until_said("in the cluster", 60)
    assert up.b.run("mkdir", "-p", f"{HOME}/other").code == 0
    second = up.b.run(SEQPIPE, "cluster", "join", "10.77.0.1", at=f"{HOME}/other", SEQPIPE_JOIN_CODE=up.code)
    refused(second, "already")
    assert member.leave().code in (0, 130)
    quiet_within(up.b, 5)


def test_a_cluster_of_another_workspace(up):
    assert up.a.run("mkdir", "-p", f"{HOME}/other").code == 0
    up.a.path(f"{HOME}/other/mlflow.yaml").touch()
    done = up.a.run(SEQPIPE, "cluster", "up", at=f"{HOME}/other")
    refused(done, "/home/me/work")
    refused(up.a.run(SEQPIPE, "cluster", "down", at=f"{HOME}/other"), "no cluster")
    assert up.is_ready(up.a.name)


def test_leaving_a_node_that_is_not_there(up):
    refused(up.run("leave", "nobody"), "nobody")


def test_nothing_of_ours_listens_without_the_token(up):
    """Every open port of A's is one that was named for a firewall, and the head answers nothing without the token."""
    done = up.b.run(sys.executable, "-c", ASK_THE_HEAD, f"10.77.0.1:{HEAD_PORT}", timeout_s=60)
    assert done.code != 0
    open_ports = sorted(int(each.rpartition(":")[2]) for each in up.a.listening() if "127.0.0.1" not in each)
    assert up.head is not None
    told = up.head.out + up.head.err
    for port in open_ports:
        assert str(port) in told or any(int(low) <= port <= int(high) for low, high in ranges(told)), (port, told)


def ranges(told):
    return re.findall(r"(\d{4,5})\s*(?:-|to|–)\s*(\d{4,5})", told)


# -- before there is a cluster


@pytest.fixture
def fresh(tmp_path):
    with separate(tmp_path) as made:
        yield made


def test_ports_in_use_are_named(fresh):
    server = fresh.a.start(sys.executable, "-c", LISTEN, "", str(HEAD_PORT), WEB)
    server.wait_until_said("ready")
    refused(fresh.run("up"), str(HEAD_PORT))
    server.leave(9)
    quiet_within(fresh.a, 5)


def test_no_network_and_several_networks(fresh):
    pair = "link add eth1 type veth peer name eth2"
    for words in (pair, "addr add 192.168.5.7/24 dev eth1", "link set eth1 up", "link set eth2 up"):
        assert fresh.a.run("ip", *words.split(), at="/").code == 0
    refused(fresh.run("up"), "192.168.5.7", "10.77.0.1", "--bind")
    assert fresh.a.run("ip", "link", "del", "eth1", at="/").code == 0
    assert fresh.a.run("ip", "link", "set", "wlan0", "down", at="/").code == 0
    refused(fresh.run("up"), "network")
    quiet_within(fresh.a, 5)


def test_commands_without_a_cluster_say_so(fresh):
    for words in (("status",), ("down",), ("leave", "laptop-b")):
        refused(fresh.run(*words), "no cluster is up from this workspace")


def test_a_workspace_that_cannot_be_written(fresh):
    assert fresh.a.run("mkdir", "-p", f"{HOME}/ro").code == 0
    fresh.a.path(f"{HOME}/ro/mlflow.yaml").touch()
    assert fresh.a.run("mount", "--bind", f"{HOME}/ro", f"{HOME}/ro", at="/").code == 0
    assert fresh.a.run("mount", "-o", "remount,bind,ro", f"{HOME}/ro", at="/").code == 0
    done = fresh.a.run(SEQPIPE, "cluster", "up", at=f"{HOME}/ro")
    assert done.code in (1, 6), done.err
    assert len(done.errors) == 1, done.err
    quiet_within(fresh.a, 5)


def test_another_version_of_seqpipe_is_refused_with_a_table(tmp_path):
    with cluster(tmp_path, join=False) as two:
        two.b.own_source()
        with two.b.path(str(REPOSITORY / "tuning" / "space.py")).open("a") as file:
            file.write("\n# another version\n")
        done = two.b.run(SEQPIPE, "cluster", "join", "10.77.0.1", SEQPIPE_JOIN_CODE=two.code)
        assert done.code == 6, done.err
        assert "seqpipe" in done.out + done.err
        quiet_within(two.b, 5)
