import pytest

from tuning.cluster import addresses
from tuning.cluster.addresses import HeadAddress, InterfaceAddress, as_typed, parse, require_other, resolved, to_bind
from tuning.errors import ClusterError

WLAN = InterfaceAddress("wlan0", "192.168.1.10")
ETHERNET = InterfaceAddress("eth0", "10.1.2.3")
NOBODY_S = (
    InterfaceAddress("lo", "127.0.0.1"),
    InterfaceAddress("lo", "::1"),
    InterfaceAddress("docker0", "172.17.0.1"),
    InterfaceAddress("br-12ab", "172.18.0.1"),
    InterfaceAddress("virbr0", "192.168.122.1"),
    InterfaceAddress("veth7", "10.5.0.1"),
    InterfaceAddress("eth1", "169.254.3.4"),
    InterfaceAddress("wlan0", "fe80::1"),
    InterfaceAddress("wlan0", "fd00::5"),
    InterfaceAddress("eth2", "8.8.8.8"),
)


def test_the_only_address_in_a_local_network_is_bound():
    assert to_bind(None, (*NOBODY_S, WLAN)) == "192.168.1.10"
    assert to_bind(None, [InterfaceAddress("tailscale0", "100.101.102.103")]) == "100.101.102.103"


def test_several_addresses_are_named_to_choose_from():
    with pytest.raises(ClusterError, match=r"192\.168\.1\.10 \(wlan0\), 10\.1\.2\.3 \(eth0\); say which one to bind"):
        to_bind(None, (*NOBODY_S, WLAN, ETHERNET))


def test_without_a_network_it_says_so_and_names_what_could_be_asked_for():
    with pytest.raises(ClusterError, match="no address in a local network") as raised:
        to_bind(None, NOBODY_S)
    assert "172.17.0.1 (docker0)" in str(raised.value)
    assert "fe80" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "bound"),
    [("wlan0", "192.168.1.10"), ("192.168.1.10", "192.168.1.10"), ("docker0", "172.17.0.1"), ("127.0.0.1",) * 2],
)
def test_what_is_asked_for_is_bound_by_address_or_interface(asked, bound):
    assert to_bind(asked, (*NOBODY_S, WLAN, ETHERNET)) == bound


@pytest.mark.parametrize("asked", ["192.168.1.11", "wlan7", "laptop", "fe80::1"])
def test_an_address_that_this_machine_has_not_is_refused(asked):
    with pytest.raises(ClusterError, match=rf"no address or interface {asked}; it has .*wlan0"):
        to_bind(asked, (*NOBODY_S, WLAN))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("192.168.1.10", HeadAddress("192.168.1.10")),
        (" 192.168.1.10:7000 ", HeadAddress("192.168.1.10", 7000)),
        ("laptop-a.local", HeadAddress("laptop-a.local")),
        ("laptop-a:7000", HeadAddress("laptop-a", 7000)),
        ("fd00::5", HeadAddress("fd00::5")),
        ("[fd00::5]", HeadAddress("fd00::5")),
        ("[fd00:0::5]:7000", HeadAddress("fd00::5", 7000)),
    ],
)
def test_an_address_is_read_with_and_without_a_port(text, read):
    assert parse(text) == read


@pytest.mark.parametrize(
    "text", ["", ":7000", "a b", "http://laptop", "a:b", "laptop:99999", "laptop:0", "[x]:7", "a@b"]
)
def test_what_is_no_address_is_told_in_one_line(text):
    with pytest.raises(ClusterError, match="is not an address"):
        parse(text)


def test_a_host_that_nobody_knows_is_told(monkeypatch):
    def unknown(*_, **__):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", unknown)
    with pytest.raises(ClusterError, match=r"no host 'laptop' \(Name or service not known\); type the address"):
        resolved("laptop")


def test_of_a_host_with_both_kinds_the_ipv4_address_is_taken(monkeypatch):
    import socket

    answers = [(socket.AF_INET6, 1, 6, "", ("fd00::5", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("10.0.0.5", 0))]
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: answers)
    assert resolved("laptop") == "10.0.0.5"


def test_an_address_that_leads_back_is_refused():
    here = (*NOBODY_S, WLAN)
    require_other("192.168.1.11", here, is_head_here=True)
    require_other("169.254.3.9", here, is_head_here=True)
    with pytest.raises(ClusterError, match="fe80::9 means something else on every link; type the address"):
        require_other("fe80::9", here, is_head_here=False)
    with pytest.raises(ClusterError, match=r"1\.10 is this machine itself, with that cluster's head"):
        require_other("192.168.1.10", here, is_head_here=True)
    with pytest.raises(ClusterError, match=r"1\.10 leads to this machine itself \(its wlan0\); type the address"):
        require_other("192.168.1.10", here, is_head_here=False)
    with pytest.raises(ClusterError, match=r"172\.17\.0\.1 leads to this machine itself \(its docker0\)"):
        require_other("172.17.0.1", here, is_head_here=False)
    for loopback in ("127.0.0.1", "127.0.1.1", "::1"):
        with pytest.raises(ClusterError, match="is this machine itself; type the address"):
            require_other(loopback, here, is_head_here=True)


def test_a_name_that_was_typed_is_said_with_its_address():
    with pytest.raises(ClusterError, match=r"^localhost \(127\.0\.0\.1\) is this machine itself"):
        require_other("127.0.0.1", NOBODY_S, is_head_here=False, typed="localhost")
    with pytest.raises(ClusterError, match=r"^127\.0\.0\.1 is this machine itself"):
        require_other("127.0.0.1", NOBODY_S, is_head_here=False, typed="127.0.0.1")


def test_the_usual_port_need_not_be_typed():
    assert as_typed("10.0.0.5", 6480) == "10.0.0.5"
    assert as_typed("10.0.0.5", 7000) == "10.0.0.5:7000"
    assert as_typed("fd00::5", 7000) == "[fd00::5]:7000"


def test_this_machine_has_its_loopback_address():
    assert any(one.address == "127.0.0.1" for one in addresses.of_this_machine())
