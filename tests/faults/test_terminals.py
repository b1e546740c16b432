"""Terminals that are closed over a search, and over a command that waits."""

import os
import pty
import signal
import time

import psutil
from product import LONG, SEQPIPE, leave, tiny


class Terminal:
    """A command in the foreground of a terminal of its own."""

    def __init__(self, place, *words):
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(place.root)
            os.execve(SEQPIPE, [SEQPIPE, *words], place.environ | {"TERM": "xterm-256color"})
        self._place = place

    def wait_for(self, condition, timeout_s=60):
        """Read what is drawn until the condition holds."""
        os.set_blocking(self._master, False)
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            try:
                os.read(self._master, 65536)
            except BlockingIOError:
                time.sleep(0.02)

    def close(self):
        """Close it as a person closes a window; the exit code of the command."""
        os.close(self._master)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def test_closing_the_window_of_a_search_saves_its_trials_and_leaves_nothing_running(place):
    words = ["tune", *tiny(train__epochs=30, data__fraction=0.5), "--trials", "2", "--trial-memory-mb", "900"]
    terminal = Terminal(place, *words)
    ledgers = place.root / ".seqpipe" / "searches"
    terminal.wait_for(lambda: any('"report"' in path.read_text() for path in ledgers.rglob("ledger.jsonl")))
    below = psutil.Process(terminal.pid).children(recursive=True)
    assert terminal.close() == 129
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []
    assert list(ledgers.rglob("row-*/0*")), "a trial's checkpoint"


def test_the_closed_terminal_of_a_command_that_waits_ends_the_waiting(place):
    first = place.start("run", "train", *LONG)
    assert place.wait_for(place.checkpoints, first)
    first.send_signal(signal.SIGSTOP)
    second = place.start("run", "train", *LONG)
    time.sleep(2)
    assert leave(second, signal.SIGHUP, timeout_s=5).code == 129
