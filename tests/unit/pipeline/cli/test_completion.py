"""Words that bash cuts at an `@`."""

import os

import pytest

from pipeline.cli import app
from pipeline.cli.completion import joined, of_whole_words


@pytest.mark.parametrize(
    ("words", "before", "typed"),
    [
        (["seqpipe", "serve", "--model", "m", "@", "ch"], ["seqpipe", "serve", "--model"], "m@ch"),
        (["seqpipe", "serve", "--model", "m", "@"], ["seqpipe", "serve", "--model"], "m@"),
        (["seqpipe", "runs", "compare", "m", "@", "a", "n", "@", "c"], ["seqpipe", "runs", "compare", "m@a"], "n@c"),
        (["seqpipe", "predict", "a.png", "--model", "m", "@", "c", "-"],
         ["seqpipe", "predict", "a.png", "--model", "m@c"], "-"),
        (["seqpipe", "@"], ["seqpipe"], "@"),
        (["seqpipe"], [], "seqpipe"),
    ],
)  # fmt: skip
def test_they_are_put_together_again(words, before, typed):
    assert joined(words) == (before, typed)


def test_nothing_is_said_into_the_line_that_somebody_types(monkeypatch, capsys):
    monkeypatch.setenv("_SEQPIPE_COMPLETE", "complete_bash")
    app._complain("seqpipe: interrupted")
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("_SEQPIPE_COMPLETE")
    app._complain("seqpipe: interrupted")
    assert capsys.readouterr().err == "seqpipe: interrupted\n"


@pytest.mark.parametrize("cursor", [None, "", "x"])
def test_a_shell_that_does_not_say_where_its_cursor_is_gets_no_traceback(monkeypatch, cursor):
    monkeypatch.setenv("_SEQPIPE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "seqpipe\nserve\nm\n@")
    if cursor is None:
        monkeypatch.delenv("COMP_CWORD", raising=False)
    else:
        monkeypatch.setenv("COMP_CWORD", cursor)
    with of_whole_words():
        assert os.environ["COMP_WORDS"] == "seqpipe\nserve\nm\n@"
