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


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.name.invalid"])
def test_an_address_that_is_not_this_machines_is_told(host):
    with pytest.raises(ConfigError, match="not this machine's"):
        listen(host, 0)


def test_which_addresses_only_this_machine_reaches():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "", "a" * 300)] == [
        True, True, True, False, False, False, False
    ]  # fmt: skip
