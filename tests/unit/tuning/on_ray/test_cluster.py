import socket
import sys
import time

import pytest
import ray

from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray import cluster


@pytest.mark.parametrize("address", ["nowhere", "host:port", ":1", ""])
def test_what_is_not_an_address_is_refused(address):
    with pytest.raises(ClusterError, match="HOST:PORT"):
        cluster.check(address)


def test_an_address_that_does_not_answer_is_reported_at_once():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no Ray cluster answers") as caught:
        cluster.check(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)


def test_versions_that_differ_are_reported(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(cluster, "_versions", lambda *_: {"ray_version": "2.9.0", "python_version": "3.8.1"})
        with pytest.raises(ClusterError, match=r"ray 2\.9\.0 there.*python 3\.8 there"):
            cluster.check(address)


def test_a_server_that_accepts_and_never_answers_is_given_up_in_time_or_at_a_stop(monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterError, match="no Ray cluster that lets this process in"):
            cluster.check(address)
        with pytest.raises(AskedToLeaveError):
            cluster.check(address, lambda: True)
        assert time.monotonic() - began < 5


def test_a_patch_of_python_may_differ(monkeypatch):
    here = sys.version_info
    theirs = {"ray_version": ray.__version__, "python_version": f"{here.major}.{here.minor}.{here.micro + 1}"}
    monkeypatch.setattr(cluster, "_versions", lambda *_: theirs)
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster.check(f"127.0.0.1:{server.getsockname()[1]}")
        theirs["python_version"] = f"{here.major}.{here.minor + 1}.{here.micro}"
        with pytest.raises(ClusterError, match="other versions"):
            cluster.check(f"127.0.0.1:{server.getsockname()[1]}")


def test_an_ipv6_address_is_written_in_brackets(monkeypatch):
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(cluster, "_versions", lambda *_: {"ray_version": "2.9.0", "python_version": "3.8.1"})
    with server, pytest.raises(ClusterError, match="other versions"):
        cluster.check(f"[::1]:{server.getsockname()[1]}")
