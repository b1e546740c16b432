"""Completion in bash of words with an `@`, such as `NAME@champion`: bash cuts them apart, and Typer does not know."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise

_ASKED = "_SEQPIPE_COMPLETE"
"""The variable by which a shell asks for completions; Typer's scripts set it."""


def is_asked() -> bool:
    """Whether a shell asks for completions, instead of a person for a command."""
    return _ASKED in os.environ


@contextmanager
def of_whole_words() -> Iterator[None]:
    """If bash asks: give Typer the word before the cursor as it was typed, and bash the part that it replaces."""
    words, cursor = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    if os.environ.get(_ASKED) != "complete_bash" or "@" not in words or not cursor.isdecimal():
        yield
        return
    before, typed = joined(words[: int(cursor) + 1])
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join([*before, typed]), str(len(before))
    cut = typed.rpartition("@")[0]  # bash replaces what begins with the @
    found = io.StringIO()
    try:
        with redirect_stdout(found):
            yield
    finally:
        sys.stdout.write("".join(line.removeprefix(cut) for line in found.getvalue().splitlines(keepends=True)))


def joined(words: list[str]) -> tuple[list[str], str]:
    """The words up to the cursor with those around an `@` put together again: those before, and the last one."""
    found = [words[0]]
    for previous, word in pairwise(words):
        if len(found) > 1 and "@" in (previous, word):
            found[-1] += word
        else:
            found.append(word)
    return found[:-1], found[-1]
