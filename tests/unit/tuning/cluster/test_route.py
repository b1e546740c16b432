import socket

from tuning.cluster.route import address_towards


def test_the_way_to_this_machine_is_over_its_loopback():
    assert address_towards("127.0.0.1", 6480) == "127.0.0.1"


def test_no_way_is_no_address(monkeypatch):
    def unreachable(*_):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert address_towards("192.0.2.1", 6480) is None


def test_an_unknown_name_is_no_way(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert address_towards("nowhere.invalid", 6480) is None
