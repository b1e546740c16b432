"""When a token is asked for, and which ones are taken."""

import pytest

from pipeline.errors import ConfigError
from pipeline.serving.token import token_for

GOOD = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_on_this_machine_alone_no_token_is_needed(host):
    assert token_for(host, None, {}) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "no such name"])
def test_where_others_reach_it_a_token_is_needed(host):
    with pytest.raises(
        ConfigError, match="it takes a token: put one into a file for --token-file, or into SEQPIPE_SE"
    ):
        token_for(host, None, {})


def test_the_file_counts_before_the_variable(tmp_path):
    (tmp_path / "token").write_text(f"{GOOD}-of-the-file\n")
    environ = {"SEQPIPE_SERVE_TOKEN": GOOD}
    assert token_for("0.0.0.0", None, environ) == GOOD
    assert token_for("127.0.0.1", None, environ) == GOOD, "given one, it asks for it here, too"
    assert token_for("0.0.0.0", tmp_path / "token", environ) == f"{GOOD}-of-the-file"


@pytest.mark.parametrize("content", [b"", b"short", b"with a space in the token", b"\xff" * 20, "Schlüssel" * 3])
def test_what_is_no_good_token_is_refused_without_showing_it(tmp_path, content):
    (tmp_path / "token").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        token_for("127.0.0.1", tmp_path / "token", {})
    assert "short" not in str(refused.value)
    assert "token" in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        token_for("127.0.0.1", tmp_path / "none", {})
