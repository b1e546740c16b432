"""Tables and notes in terminals of every kind."""

import io

import pytest

from pipeline.cli.console import Watcher, table

NAME = "[red]a[/] :cat: \n\x1b[31m"
SHOWN = r"[red]a[/] :cat: \n\x1b[31m"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes both streams a terminal of a kind and a width; returns what it is shown."""

    def of(term, columns=100):
        for key, value in {"TERM": term, "COLUMNS": str(columns), "NO_COLOR": "1"}.items():
            monkeypatch.setenv(key, value)
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        monkeypatch.setattr("sys.stderr", shown)
        return shown

    return of


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_name_is_shown_as_it_is_and_obeyed_nowhere(terminal, term):
    shown = terminal(term)
    table(["run", "status"], [[NAME, "FINISHED"]])
    assert SHOWN in shown.getvalue()
    Watcher().note("[red]a[/] :cat:")
    assert "  [red]a[/] :cat:\n" in shown.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_shows_lines_only_gets_lines(terminal, term):
    shown = terminal(term)
    watcher = Watcher()
    watcher.heading("train")
    watcher.bytes_done("Making images", 1, 2)
    table(["run", "status"], [["a", "FINISHED"]])
    watcher.close()
    assert shown.getvalue() == "train\n  Making images\nrun  status\na    FINISHED\n"


@pytest.mark.parametrize("columns", [0, 1, 20])
def test_in_a_narrow_terminal_no_word_of_a_table_is_cut(terminal, columns):
    shown = terminal("xterm", columns)
    table(["model", "stage", "state", "why"], [["small", "prepare", "up to date", "made today"]])
    assert "small  prepare  up to date  made today" in shown.getvalue()
