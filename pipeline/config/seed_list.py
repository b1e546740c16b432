"""The seeds of a command as people write them: `0-2`, `0,3,7`, or both."""

import re

from pipeline.errors import ConfigError

MOST = 1000


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-2,7` -> 0, 1, 2, 7; each seed once, in the order given.

    Raises:
        ConfigError: it is no list of seeds, or of more than `MOST`.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        written = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part, re.ASCII)
        first, last = (int(written[1]), int(written[2] or written[1])) if written else (1, 0)
        if first > last:
            raise ConfigError(f"--seeds {text}: write them as 0-2, or as 0,3,7")
        if last - first >= MOST or len(seeds) >= MOST:
            raise ConfigError(f"--seeds {text}: give at most {MOST} seeds")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)
