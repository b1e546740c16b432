"""The token that a server beyond this machine asks for: from a file or the environment, never an argument."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.listening import is_loopback

VARIABLE = "SEQPIPE_SERVE_TOKEN"
LEAST_LETTERS = 16


def token_for(host: str, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The token to ask for; None for a server that only this machine reaches and that was given none.

    Raises:
        ConfigError: others reach the server and there is no token, or it is none that can be sent, or a short one.
    """
    source, token = (str(file), _content(file)) if file is not None else (VARIABLE, environ.get(VARIABLE, "").strip())
    if not token and file is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"on {host} others reach the server, so it takes a token: put one into a file for --token-file, or into "
            f"{VARIABLE} (`openssl rand -hex 32` makes one)"
        )
    if len(token) < LEAST_LETTERS or not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(
            f"the token in {source} must have at least {LEAST_LETTERS} letters and digits, without a space "
            "(`openssl rand -hex 32` makes one)"
        )
    return token


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"--token-file {file} cannot be read: {why}") from None
