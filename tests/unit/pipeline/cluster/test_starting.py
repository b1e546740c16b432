import os
import signal
from dataclasses import replace

import pytest
from fake_cluster import versions_here

from pipeline.cluster import node_here, starting
from pipeline.cluster.starting import Asked
from pipeline.cluster.workspace_cluster import ClusterFolder, left_over, running
from pipeline.errors import InterruptedRunError, MachineUnfitError
from pipeline.stop import StopToken
from tuning.cluster import addresses
from tuning.cluster.addresses import InterfaceAddress
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import Lost, OtherJoined
from tuning.errors import ClusterError


@pytest.fixture
def up(workspace, cluster):
    """Starts the cluster; what it was told once it was up, and then."""

    def start(asked=None, on_up=lambda access: None):
        told = []

        def up(access):
            told.append(access)
            on_up(access)

        with StopToken().installed() as stop_token:
            why = starting.up(workspace, asked or Asked(), up, told.append, stop_token)
        return why, told

    return start


def test_a_cluster_is_up_with_a_code_of_its_own_and_leaves_nothing_behind(workspace, cluster, up):
    seen = {}
    cluster.events = [OtherJoined("b", "10.0.0.2")]

    def on_up(access):
        seen.update(running=running(workspace), here=node_here.find())

    why, (access, *events) = up(on_up=on_up)
    assert why == "Ctrl-C"
    assert seen["running"] == access
    assert (seen["here"].kind, seen["here"].of) == ("head", str(workspace.root))
    assert (access.head.host, access.head.port, access.head.pid) == ("192.168.1.10", 6480, os.getpid())
    assert access.head.goes_on_from is None
    assert access.code.digest == versions_here().digest
    assert [type(event).__name__ for event in events] == ["OtherJoined", "Left"]
    (plan, address, code) = cluster.asked[0]
    assert (address, code) == ("192.168.1.10", access.code)
    assert (plan.name, plan.facts["precision"]) == (access.head.name, "fp32")
    assert (access.head.cores, access.head.gives_mb, access.head.reserve_mb) == (
        plan.cores, plan.gives_mb, plan.reserve_mb,
    )  # fmt: skip
    assert running(workspace) is left_over(workspace) is node_here.find() is None


def test_what_was_asked_for_is_what_the_head_gets(cluster, up):
    up(Asked(bind="lo", port=7000, reserve_mb=600))
    plan, address, _ = cluster.asked[0]
    assert address == "127.0.0.1"
    assert (plan.ports.base, plan.reserve_mb) == (7000, 600)


def test_after_a_crash_the_next_one_has_the_same_code_port_and_address(workspace, cluster, up, monkeypatch):
    cluster.error = ClusterError("its processes were lost")
    with pytest.raises(ClusterError, match="lost"):
        crash(up, cluster, Asked(port=7000, bind="lo"))
    before = left_over(workspace)
    cluster.error = None
    _, (access, *_) = up()
    assert access.code == before.code
    assert access.head.typed == access.head.goes_on_from == "127.0.0.1:7000"
    assert left_over(workspace) is None, "it ended in order"


def crash(up, cluster, asked):
    """An `up` that is lost after it was up."""
    error, cluster.error = cluster.error, None

    def lost(access):
        raise error

    up(asked, on_up=lost)


def test_a_laptop_with_another_address_says_where_it_was(workspace, cluster, up, monkeypatch):
    cluster.error = ClusterError("lost")
    with pytest.raises(ClusterError):
        crash(up, cluster, Asked())
    monkeypatch.setattr(addresses, "of_this_machine", lambda: (InterfaceAddress("wlan0", "192.168.1.77"),))
    _, (access, *_) = up()
    assert (access.head.typed, access.head.goes_on_from) == ("192.168.1.77", "192.168.1.10")


def test_a_head_whose_laptop_gets_another_address_starts_anew_there_with_the_same_code(cluster, up, monkeypatch):
    ups = []

    def moves(access):
        ups.append(access)
        if len(ups) == 1:
            monkeypatch.setattr(addresses, "of_this_machine", lambda: (InterfaceAddress("wlan0", "192.168.1.77"),))
            raise ClusterError("the head does not answer")

    why, told = up(on_up=moves)
    first, second = ups
    assert (first.head.typed, second.head.typed) == ("192.168.1.10", "192.168.1.77")
    assert second.code == first.code
    assert second.head.goes_on_from == "192.168.1.10"
    assert [address for _, address, _ in cluster.asked] == ["192.168.1.10", "192.168.1.77"]
    assert any(isinstance(event, Lost) and "no longer 192.168.1.10" in event.why for event in told)
    assert why == "Ctrl-C"


def test_a_head_without_a_network_waits_for_one_until_it_is_asked_to_end(workspace, cluster, up, monkeypatch):
    def lost(access):
        monkeypatch.setattr(addresses, "of_this_machine", lambda: (InterfaceAddress("lo", "127.0.0.1"),))
        ClusterFolder(workspace.cluster).ask_to_end()
        raise ClusterError("the head does not answer")

    assert up(on_up=lost)[0] == "this laptop lost its address 192.168.1.10"
    assert left_over(workspace) is None


def test_other_versions_get_another_code(workspace, cluster, up, monkeypatch):
    cluster.error = ClusterError("lost")
    with pytest.raises(ClusterError):
        crash(up, cluster, Asked())
    before = left_over(workspace)
    ours = replace(versions_here(), code="changed")
    monkeypatch.setattr("tuning.cluster.versions.of_this_machine", lambda packages: ours)
    _, (access, *_) = up()
    assert access.code.token != before.code.token
    assert access.head.goes_on_from is None


def test_a_cluster_that_does_not_come_up_leaves_no_code(workspace, cluster, up):
    cluster.error = ClusterError("Ray does not start")
    with pytest.raises(ClusterError, match="does not start"):
        up()
    assert left_over(workspace) is None
    assert not ClusterFolder(workspace.cluster).code.exists()


def test_a_second_signal_ends_it_for_good(workspace, cluster, up):
    def interrupted(access):
        raise InterruptedRunError("twice")

    with pytest.raises(InterruptedRunError):
        up(on_up=interrupted)
    assert left_over(workspace) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_laptop_that_shuts_down_goes_on_with_the_same_code(workspace, cluster, up, number):
    _, (first, *_) = up(on_up=lambda access: signal.raise_signal(number))
    assert (cluster.stopped, cluster.comes_back) == (True, True)
    assert left_over(workspace) == first
    _, (second, *_) = up(on_up=lambda access: signal.raise_signal(signal.SIGINT))
    assert second.code == first.code
    assert (cluster.stopped, cluster.comes_back) == (True, False)
    assert left_over(workspace) is None, "Ctrl-C ends it for good"


def test_down_is_a_reason_to_stop_and_so_is_a_signal(workspace, cluster, up):
    up()
    assert cluster.stopped is False
    up(on_up=lambda access: ClusterFolder(workspace.cluster).ask_to_end())
    assert cluster.stopped is True


def test_several_addresses_and_taken_ports_name_the_flag(cluster, up, monkeypatch):
    several = (InterfaceAddress("wlan0", "192.168.1.10"), InterfaceAddress("eth0", "10.0.0.3"))
    monkeypatch.setattr(addresses, "of_this_machine", lambda: several)
    with pytest.raises(
        MachineUnfitError, match=r"192\.168\.1\.10 \(wlan0\), 10\.0\.0\.3 \(eth0\).*\(--bind ADDRESS\)"
    ):
        up()
    monkeypatch.setattr("tuning.cluster.ports.taken", lambda numbers: [n for n in numbers if n < 6590])
    with pytest.raises(MachineUnfitError, match=r"let the ports begin at 6590 \(--port NUMBER\)"):
        up(Asked(bind="eth0"))
    monkeypatch.setattr("tuning.cluster.ports.taken", lambda numbers: [n for n in numbers if n == 6480])
    with pytest.raises(MachineUnfitError, match="port 6480 cannot be used"):
        up(Asked(bind="eth0"))


def test_the_cluster_of_another_workspace_is_named(cluster, up):
    with (
        node_here.only_one("head", "/elsewhere"),
        pytest.raises(MachineUnfitError, match="workspace /elsewhere already"),
    ):
        up()


def test_a_code_of_before_that_cannot_be_read_is_replaced(workspace, cluster, up):
    cluster.error = ClusterError("lost")
    with pytest.raises(ClusterError):
        crash(up, cluster, Asked())
    ClusterFolder(workspace.cluster).code.write_text("?")
    _, (access, *_) = up()
    assert JoinCode.parse(str(access.code)) == access.code
