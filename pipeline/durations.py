"""Durations as people write and read them."""

import re

from pipeline.errors import ConfigError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")


def parse_seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `1h30m` -> seconds.

    Raises:
        ConfigError: it is not a valid duration, or not above zero.
    """
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", compact):
        seconds = float(compact)
    elif _WRITTEN.fullmatch(compact):
        seconds = sum(float(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[\d.]+[smh]", compact))
    else:
        raise ConfigError(f"{text!r} is not a valid duration; write it as 90s, 15m or 1h30m")
    if seconds <= 0:
        raise ConfigError(f"a duration of {text!r} leaves no time; give more than 0")
    return seconds


def readable(seconds: float) -> str:
    """Seconds -> `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
