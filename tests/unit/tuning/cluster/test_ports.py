import os
import socket

import pytest

from tuning.cluster import ports as module
from tuning.cluster.ports import DEFAULT_BASE, Ports, can_connect, require_free, taken
from tuning.errors import ClusterError


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_ports_differ_lie_beside_each_other_and_below_the_ephemeral_ones():
    head, node = Ports().all(is_head=True), Ports().all(is_head=False)
    assert len(set(head)) == len(head)
    assert set(node) == set(head) - {Ports().gcs, Ports().client_server}
    assert min(head) == DEFAULT_BASE == Ports().gcs
    assert max(head) < 32768
    first, last = map(int, Ports().in_words().split("-"))
    assert (first, last) == (min(head), max(head))
    named = ("node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc", "dashboard_agent_listen")
    turns = [Ports(turn=0), Ports(turn=1)]
    services = [{getattr(ports, name) for name in (*named, "metrics")} for ports in turns]
    workers = [set(ports.workers) for ports in turns]
    parts = [*services, *workers]
    assert set().union(*parts) == set(node)
    assert sum(map(len, parts)) == len(set(node)), "none is used twice"
    assert [ports.gcs for ports in turns] == [DEFAULT_BASE] * 2
    assert Ports(turn=2).workers == Ports(turn=0).workers
    assert all(len(own) >= 40 for own in workers)


def test_two_bases_a_hundred_and_ten_apart_share_no_port():
    assert not set(Ports(7000).all(is_head=True)) & set(Ports(7110).all(is_head=True))


@pytest.mark.parametrize("base", [0, 80, 1023, 32700, 70000])
def test_ports_of_the_system_or_in_the_ephemeral_range_are_refused(base):
    with pytest.raises(ClusterError, match=f"begin at {base}; choose a number from 1024 to"):
        Ports(base)


def test_a_port_that_something_listens_on_is_taken_and_named(listener):
    (found,) = taken([listener])
    assert found.port == listener
    assert str(os.getpid()) in found.why or found.why == "in use"
    assert taken([]) == ()


def test_a_taken_port_is_one_line_with_the_next_numbers_that_are_free(monkeypatch):
    busy = {6481}
    monkeypatch.setattr(module, "_error_of_binding", lambda port: OSError(98, "in use") if port in busy else None)
    monkeypatch.setattr(module, "_holders", lambda: {6481: "in use by nginx, process 7"})
    monkeypatch.setattr(module.errno, "EADDRINUSE", 98)
    require_free(Ports(7000), is_head=True)
    with pytest.raises(
        ClusterError, match=r"port 6481 \(in use by nginx, process 7\) cannot be used; .* begin at 6590"
    ):
        require_free(Ports(), is_head=False)
    busy |= {6600, *range(6480, 6590)}
    with pytest.raises(ClusterError, match=r"ports 6480 .* and 105 more cannot be used; .* begin at 6700"):
        require_free(Ports(), is_head=True)


def test_a_port_that_may_not_be_used_says_why(monkeypatch):
    monkeypatch.setattr(module, "_error_of_binding", lambda port: PermissionError(13, "Permission denied"))
    assert str(taken([6480])[0]) == "6480 (Permission denied)"


def test_what_listens_can_be_connected_to(listener):
    assert can_connect("127.0.0.1", listener)
    assert not can_connect("127.0.0.1", 1)
