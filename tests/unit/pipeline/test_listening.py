"""Ports to listen on."""

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


def test_which_addresses_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "", "a" * 300)))
