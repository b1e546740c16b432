import socket
from dataclasses import replace

import pytest
from fake_cluster import HEAD, versions_here

from pipeline.cluster import joining, node_here
from pipeline.cluster.joining import CODE_VARIABLE, Asked, given_code, head_address
from pipeline.errors import ConfigError, MachineUnfitError
from pipeline.stop import StopToken
from tuning.cluster import addresses, ports
from tuning.cluster.addresses import HeadAddress
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import Unfit
from tuning.errors import ClusterError
from tuning.on_ray import probe
from tuning.on_ray.board import Reached

CODE = JoinCode.new("PQRST")
HEAD_AT = HeadAddress("127.0.0.1", 6480)
taken = ports.taken
"""As it is before a test replaces it."""


@pytest.fixture
def join(cluster, monkeypatch):
    """Joins; what was compared, and what was told then."""
    cluster.answer = probe.Head(replace(HEAD, versions=versions_here()), "s")
    monkeypatch.setattr(ports, "can_connect", lambda address, port: True)

    base = next(base for base in range(20_000, 32_000, 110) if not taken(range(base, base + 110)))
    cluster.base = base

    def join(asked=None):
        told = []
        asked = asked or Asked(port=base)
        with joining.this_laptop.Facts() as facts:
            why = joining.join(HEAD_AT, CODE, asked, facts, told.append, told.append, StopToken())
        return why, told

    return join


def test_a_laptop_is_compared_with_the_head_and_joins(cluster, join):
    cluster.events = [Unfit("its disk is full")]
    why, (compared, *events) = join(Asked(name="b", port=cluster.base, reserve_mb=600))
    assert why == "Ctrl-C"
    assert {line.verdict for line in compared.lines if line.what in ("Python", "Ray", "code", "torch")} == {"same"}
    assert compared.head.name == "a"
    assert (compared.here.name, compared.here.address, compared.here.reserve_mb) == ("b", "127.0.0.1", 600)
    assert [type(event).__name__ for event in events] == ["Joined", "Unfit", "Left"]
    asked, ran = cluster.asked
    assert asked == ("127.0.0.1:6480", CODE.token)
    plan, address, code = ran
    assert (plan.name, plan.ports.base, address, code) == ("b", cluster.base, "127.0.0.1:6480", CODE)
    assert cluster.called_back == [("127.0.0.1", plan.ports.all(is_head=False))]
    assert node_here.find() is None
    assert cluster.stopped is False, "nobody asked"


def test_the_ports_that_the_head_calls_are_listened_on_meanwhile(cluster, join, monkeypatch):
    reachable = []

    def call_back(address, wanted):
        for port in wanted:
            socket.create_connection((address, port), 1).close()
            reachable.append(port)
        return Reached((), 0.0)

    board = cluster.board("", "")
    board.call_back = call_back
    monkeypatch.setattr("tuning.on_ray.board.Board", lambda address, token: board)
    join()
    assert {cluster.base + 1, cluster.base + 2} <= set(reachable)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda cluster: setattr(cluster, "reached", Reached((6481,), 0.0)), "ports here"),
        (lambda cluster: setattr(cluster, "reached", Reached((), 3600.0)), "clock"),
        (lambda cluster: setattr(cluster, "answer", probe.Head(HEAD, "s")), "Python, Ray, code"),
    ],
)
def test_a_laptop_that_does_not_fit_sees_the_table_and_stays_out(cluster, join, change, what):
    change(cluster)
    with pytest.raises(MachineUnfitError, match=rf"does not fit the cluster \({what}\): see the table"):
        join()
    assert len(cluster.asked) == 1, "the probe"


def test_ports_of_the_head_that_cannot_be_reached_are_named(cluster, join, monkeypatch):
    monkeypatch.setattr(ports, "can_connect", lambda address, port: port != 6482)
    with pytest.raises(MachineUnfitError, match=r"\(ports there\)"):
        join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (probe.WrongToken(), "refuses this join code; type the one that `seqpipe cluster up` shows there now"),
        (
            probe.NotAHead("a Redis server"),
            "at 127.0.0.1:6480 there is a Redis server .*another Python, Ray or seqpipe.; type the line",
        ),
        (probe.Nothing("Connection refused", True), r"nobody answers at .* \(Connection refused\); .*6480-6589 in\?"),
    ],
)
def test_what_is_no_head_or_refuses_is_one_line(cluster, join, answer, said):
    cluster.answer = answer
    with pytest.raises(MachineUnfitError, match=said) as raised:
        join()
    assert "\n" not in str(raised.value)
    assert str(CODE) not in str(raised.value)


def test_taken_ports_name_the_flag(cluster, join, monkeypatch):
    monkeypatch.setattr("tuning.cluster.ports.taken", lambda numbers: [n for n in numbers if n < 6590])
    with pytest.raises(MachineUnfitError, match=r"\(--port NUMBER\)"):
        join(Asked())


def test_a_laptop_that_is_in_a_cluster_does_not_join_another(join):
    with (
        node_here.only_one("head", "/work"),
        pytest.raises(MachineUnfitError, match="runs the cluster of the workspace"),
    ):
        join()


def test_the_address_leads_to_another_laptop(cluster):
    assert head_address("192.168.1.11:7000") == HeadAddress("192.168.1.11", 7000)
    with pytest.raises(ClusterError, match="its wlan0"):
        head_address("192.168.1.10")
    with node_here.only_one("head", "/work"), pytest.raises(ClusterError, match="with that cluster's head"):
        head_address("192.168.1.10")
    with pytest.raises(ClusterError, match="is not an address"):
        head_address("http://192.168.1.11")


def test_a_name_is_looked_up(cluster, monkeypatch):
    monkeypatch.setattr(addresses, "resolved", lambda host: {"laptop-a": "192.168.1.11"}[host])
    assert head_address("laptop-a") == HeadAddress("192.168.1.11")


def test_the_code_comes_from_a_private_file_or_the_environment(tmp_path):
    file = tmp_path / "code"
    file.write_text(str(CODE))
    file.chmod(0o600)
    assert given_code(file, {CODE_VARIABLE: "other"}) == str(CODE)
    assert given_code(None, {CODE_VARIABLE: "other"}) == "other"
    assert given_code(None, {}) is None
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(ConfigError, match=f"0600: `chmod 600 {file}`"):
            given_code(file, {})
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        given_code(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        given_code(tmp_path, {})
