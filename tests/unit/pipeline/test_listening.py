"""Ports to listen on."""

import asyncio
import socket

import pytest

from pipeline.errors import ConfigError
from pipeline.listening import is_loopback, listen, require_free


def test_port_0_is_any_free_one_and_one_in_use_names_a_free_one():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        for refused in (listen, require_free):
            with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} cannot be listened on .*; use --port \d+"):
                refused("127.0.0.1", port)
    require_free("127.0.0.1", port)


def test_an_address_that_is_not_this_machines_is_told():
    with pytest.raises(ConfigError, match="not this machine's"):
        listen("192.0.2.1", 0)


def test_the_parts_of_an_answer_are_sent_at_once():
    """Else the second waits for the acknowledgement of the first: 40 ms on Linux."""

    async def option_of_connection():
        found = asyncio.get_running_loop().create_future()

        def connected(_, writer):
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            value = await asyncio.wait_for(found, 10)
            writer.close()
            return value

    assert asyncio.run(option_of_connection()) != 0


def test_which_addresses_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "", "a" * 300)))
