import socket
import threading
import time
from contextlib import contextmanager

import pytest
from fake_head import FakeHead

from tuning.cluster.node_record import NodeRecord
from tuning.on_ray import probe
from tuning.on_ray.board import BoardError
from tuning.on_ray.probe import Head, NotAHead, Nothing, WrongToken, ask, listens

SETTINGS_FRAME = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + b"\x00" * 6


@contextmanager
def server(says: bytes):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(100)
                if says:
                    connection.sendall(says)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("says", "what"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server"),
        (b"-ERR unknown command 'PRI'\r\n", "a Redis server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server"),
        (b"220 mail.example ESMTP\r\n", "a program that is no head"),
        (b"", "a program that does not speak"),
    ],
)
def test_what_is_no_head_is_told_by_what_it_says_and_in_time(says, what):
    began = time.monotonic()
    with server(says) as address:
        assert ask(address, "token") == NotAHead(what)
    assert time.monotonic() - began < 2


def test_a_port_that_nothing_listens_on_is_refused():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        answer = ask(address, "token")
        assert isinstance(answer, Nothing)
        assert answer.refused
        assert listens(address) == answer


def test_a_machine_that_does_not_answer_is_nothing_but_may_come_back(monkeypatch):
    def silent(*_):
        raise TimeoutError("timed out")

    monkeypatch.setattr(probe.socket, "create_connection", silent)
    assert ask("192.0.2.1:6480", "token") == Nothing("timed out", refused=False)


def test_of_a_head_its_record_and_session_are_told(monkeypatch):
    head = FakeHead()
    record = NodeRecord("a", "10.0.0.1", is_head=True)
    head.board().put_node(record)
    head.board().put_node(NodeRecord("b", "10.0.0.2"))
    monkeypatch.setattr(probe, "Board", head.board)
    with server(SETTINGS_FRAME) as address:
        assert ask(address, "token") == Head(record, "5e55")
        assert ask(address, "another") == WrongToken()
        assert listens(address) is None


def test_a_ray_cluster_without_a_head_of_ours_and_a_server_of_another_kind_are_no_heads(monkeypatch):
    head = FakeHead()
    monkeypatch.setattr(probe, "Board", head.board)
    with server(SETTINGS_FRAME) as address:
        assert ask(address, "token") == NotAHead("a Ray cluster that no `seqpipe cluster up` has made")

        def unlike(*_):
            raise BoardError("unimplemented")

        monkeypatch.setattr(probe, "Board", unlike)
        assert isinstance(ask(address, "token"), NotAHead)
